"""Mask images → rows: values, colours, instances, turned images."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from satlisa.errors import SatlisaError
from satlisa.geometry.raster import rasterize
from tests.helpers.converting import convert, picture, rows_of, samples_of

VALUES = np.zeros((48, 64), dtype=np.uint8)
VALUES[4:20, 6:30] = 1
VALUES[8:12, 10:20] = 2  # in a hole of 1
VALUES[30:, 40:] = 2


def folders(folder: Path, values: np.ndarray = VALUES, orientation: int = 1) -> tuple[Path, Path]:
    picture(folder / "images" / "a.jpg", (64, 48), orientation)
    (folder / "masks").mkdir()
    Image.fromarray(values).save(folder / "masks" / "a_mask.png")
    return folder / "images", folder / "masks"


def value_map(folder: Path, **names: str) -> Path:
    path = folder / "values.json"
    path.write_text(json.dumps(names))
    return path


@pytest.mark.parametrize("orientation", [1, 6])
def test_every_pixel_of_a_class_comes_back(tmp_path: Path, orientation: int) -> None:
    images, masks = folders(tmp_path, orientation=orientation)
    values = value_map(tmp_path, **{"1": "building", "2": "water"})
    convert("masks", images, masks, tmp_path / "out", "--values", values, "--split", "1", "--strict")
    samples = {sample.task: sample for sample in samples_of(tmp_path / "out")}
    assert set(samples) == {"building_segmentation", "water_segmentation"}  # a class cannot be counted
    for value, task in ((1, "building_segmentation"), (2, "water_segmentation")):
        expected = value == VALUES if orientation == 1 else np.rot90(value == VALUES, -1)
        assert np.array_equal(rasterize(samples[task].regions[0], *expected.shape), expected)
    assert samples["water_segmentation"].answer in ("Here is the mask of the water.", "The water is segmented.")


def test_an_object_per_value(tmp_path: Path) -> None:
    images, masks = folders(tmp_path)
    convert("masks", images, masks, tmp_path / "out", "--instances", "roof", "--split", "1")
    (sample,) = samples_of(tmp_path / "out", task="instance_segmentation")
    assert len(sample.regions) == 2
    drawn = [rasterize(region, 48, 64) for region in sample.regions]
    assert all(any(np.array_equal(mask, value == VALUES) for mask in drawn) for value in (1, 2))


def test_colours(tmp_path: Path) -> None:
    colours = np.zeros((48, 64, 3), dtype=np.uint8)
    colours[VALUES == 1] = (255, 0, 0)
    images, masks = folders(tmp_path, colours)
    values = value_map(tmp_path, **{"#ff0000": "building", "#0000ff": "water"})
    convert("masks", images, masks, tmp_path / "out", "--values", values, "--split", "1", "--negatives", "1")
    tasks = [row["task"] for row in rows_of(tmp_path / "out")]
    assert "building_segmentation" in tasks
    assert any(json.loads(row["metadata"]) == {"polygons": []} for row in rows_of(tmp_path / "out"))


def test_values_that_are_not_named_are_an_error(tmp_path: Path) -> None:
    images, masks = folders(tmp_path)
    with pytest.raises(SatlisaError, match="value 2"):
        convert("masks", images, masks, tmp_path / "out", "--values", value_map(tmp_path, **{"1": "building"}))


def test_a_mask_of_another_shape_is_an_error(tmp_path: Path) -> None:
    images, masks = folders(tmp_path, VALUES[:, :40])
    with pytest.raises(SatlisaError, match="shape"):
        convert("masks", images, masks, tmp_path / "out", "--instances", "roof")


def test_an_image_without_a_mask_is_counted(tmp_path: Path) -> None:
    images, masks = folders(tmp_path)
    picture(images / "b.png")
    convert("masks", images, masks, tmp_path / "out", "--instances", "roof", "--split", "1")
    assert "1 images without a mask" in (tmp_path / "out" / "CONVERT.md").read_text(encoding="utf-8")
