"""The demo scene is the same one every time, and has a place."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rasterio", reason="the extra geo is not installed: bash setup.sh --geo")

import rasterio

from satlisa.geo.demo_scene import draw_demo_scene


def test_the_demo_scene(tmp_path: Path) -> None:
    truth = draw_demo_scene(tmp_path / "a.tif", side=1024)
    draw_demo_scene(tmp_path / "b.tif", side=1024)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert dataset.crs == "EPSG:32645" and dataset.res == (0.25, 0.25) and dataset.shape == (1024, 1024)
        assert [role.name for role in dataset.colorinterp] == ["red", "green", "blue"]
    assert truth.shape == (1024, 1024) and 0.01 < np.mean(truth) < 0.3
