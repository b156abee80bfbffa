"""labelme → rows."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from satlisa.errors import SatlisaError
from tests.helpers.converting import convert, drawn, picture, samples_of

SQUARE = {"label": "roof", "shape_type": "polygon", "points": [[0, 0], [32, 0], [32, 24], [0, 24]]}


def write(folder: Path, *shapes: dict[str, Any], **more: Any) -> Path:
    picture(folder / "in" / "a.png")
    content = {"shapes": list(shapes), "imagePath": "a.png", "imageWidth": 64, "imageHeight": 48, **more}
    (folder / "in" / "a.json").write_text(json.dumps(content))
    return folder / "in"


def masks_of(folder: Path, *shapes: dict[str, Any], **more: Any) -> list[np.ndarray]:
    convert("labelme", write(folder, *shapes, **more), folder / "out", "--split", "1")
    return [drawn(region, 64) for s in samples_of(folder / "out", task="instance_segmentation") for region in s.regions]


def test_polygons_and_groups(tmp_path: Path) -> None:
    other = {**SQUARE, "points": [[48, 36], [64, 36], [64, 48], [48, 48]], "group_id": 0}
    masks = masks_of(tmp_path, SQUARE, {**other}, {**other, "points": [[32, 36], [40, 36], [40, 48], [32, 48]]})
    assert [mask.sum() for mask in masks] == [32 * 32, 24 * 16]


def test_a_mask_lies_in_its_box(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.full((12, 8), 255, dtype=np.uint8)).save(stream, "PNG")
    shape = {"label": "roof", "shape_type": "mask", "points": [[4, 6], [11, 17]]}
    (mask,) = masks_of(tmp_path, {**shape, "mask": base64.b64encode(stream.getvalue()).decode()})
    expected = np.zeros((64, 64), dtype=bool)
    expected[8:24, 4:12] = True
    assert np.array_equal(mask, expected)


def test_what_a_point_marks_is_not_said_to_be_absent(tmp_path: Path) -> None:
    folder = write(tmp_path, SQUARE, {"label": "tree", "shape_type": "point", "points": [[5, 5]]})
    convert("labelme", folder, tmp_path / "out", "--split", "1", "--negatives", "1")
    assert not [sample for sample in samples_of(tmp_path / "out") if "tree" in sample.turns[-1].text]


def test_a_circle_and_a_rectangle(tmp_path: Path) -> None:
    circle = {"label": "tank", "shape_type": "circle", "points": [[32, 24], [44, 24]]}
    rectangle = {"label": "roof", "shape_type": "rectangle", "points": [[16, 12], [0, 0]]}
    (mask,) = masks_of(tmp_path, circle, rectangle)
    assert mask.sum() == pytest.approx(np.pi * 12 * 12 * 64 / 48, rel=0.02)
    assert "roof [0, 0, 250, 250]" in samples_of(tmp_path / "out", task="object_detection")[0].answer


def test_the_image_may_be_in_the_file(tmp_path: Path) -> None:
    folder = write(tmp_path, SQUARE)
    data = base64.b64encode((folder / "a.png").read_bytes()).decode()
    (folder / "a.png").unlink()
    (folder / "a.json").write_text(json.dumps({"shapes": [SQUARE], "imagePath": "a.png", "imageData": data}))
    convert("labelme", folder, tmp_path / "out", "--split", "1")
    assert samples_of(tmp_path / "out")[0].image.size == (64, 48)


def test_upright_sizes_of_a_turned_image(tmp_path: Path) -> None:
    folder = write(tmp_path, {**SQUARE, "points": [[0, 0], [24, 0], [24, 32], [0, 32]]}, imagePath="b.jpg")
    picture(folder / "b.jpg", (64, 48), 6)
    content = json.loads((folder / "a.json").read_text())
    (folder / "a.json").write_text(json.dumps({**content, "imageWidth": 48, "imageHeight": 64}))
    convert("labelme", folder, tmp_path / "out", "--split", "1")
    mask = drawn(samples_of(tmp_path / "out", task="roof_segmentation")[0].regions[0], 64)
    assert mask[:32, :32].all() and mask.sum() == 32 * 32


def test_shapes_that_are_none_are_errors(tmp_path: Path) -> None:
    with pytest.raises(SatlisaError, match=r"a\.json: shape 1: .*finite"):
        masks_of(tmp_path, SQUARE, {**SQUARE, "points": [[0, 0], [float("nan"), 0], [1, 1]]})
    with pytest.raises(SatlisaError, match="cube"):
        masks_of(tmp_path, {**SQUARE, "shape_type": "cube"})
