"""QGIS styles are XML of the layout that QGIS reads."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("rasterio", reason="the extra geo is not installed: bash setup.sh --geo")

from satlisa.geo.styles import write_mask_style, write_probability_style, write_vector_style


def test_rasters(tmp_path: Path) -> None:
    write_mask_style(tmp_path / "m.qml", 'a "b" <c>\x00')
    renderer = ElementTree.parse(tmp_path / "m.qml").getroot().find("pipe/rasterrenderer")
    assert renderer is not None and renderer.get("type") == "paletted"
    assert [entry.get("label") for entry in renderer.iter("paletteEntry")] == ["other", 'a "b" <c> ']
    write_probability_style(tmp_path / "p.qml")
    renderer = ElementTree.parse(tmp_path / "p.qml").getroot().find("pipe/rasterrenderer")
    assert renderer is not None and renderer.get("type") == "singlebandpseudocolor"


def test_vectors(tmp_path: Path) -> None:
    write_vector_style(tmp_path / "v.qml", ["Forest", "River & lake"], by_answer=True)
    renderer = ElementTree.parse(tmp_path / "v.qml").getroot().find("renderer-v2")
    assert renderer is not None and renderer.get("attr") == "answer"
    assert [one.get("value") for one in renderer.iter("category")] == ["Forest", "River & lake"]
    assert len(renderer.findall("symbols/symbol")) == 2
    write_vector_style(tmp_path / "v.qml", [], by_answer=False)
    renderer = ElementTree.parse(tmp_path / "v.qml").getroot().find("renderer-v2")
    assert renderer is not None and renderer.get("type") == "singleSymbol"
