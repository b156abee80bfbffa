"""COCO → rows, against pycocotools' own masks; malformed files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from satlisa.data.rows import read_sample
from satlisa.data.synthetic.rows import demo_rows
from satlisa.errors import SatlisaError
from satlisa.geometry.raster import rasterize, run_lengths
from tests.helpers.converting import coco_file, convert, drawn, overlap, picture, rows_of, samples_of

SQUARE = {"segmentation": [[8, 8, 24, 8, 24, 24, 8, 24]], "bbox": [8, 8, 16, 16], "area": 256}


def one_image(folder: Path, *annotations: dict[str, Any], size: tuple[int, int] = (64, 48), **more: Any) -> Path:
    picture(folder / "images" / "a.png", size)
    held = [(0, 1, annotation) for annotation in annotations]
    return coco_file(folder / "labels.json", [("a.png", *size)], held, **more)


def converted(folder: Path, file: Path, *options: str) -> Path:
    convert("coco", file, folder / "images", folder / "out", "--split", "1", *options)
    return folder / "out"


def ring_mask() -> np.ndarray:
    mask = np.zeros((48, 64), dtype=np.uint8)
    mask[10:40, 10:40] = 1
    mask[20:30, 20:30] = 0
    return mask


@pytest.mark.parametrize("is_compressed", [True, False])
def test_run_lengths_keep_every_pixel_and_hole(tmp_path: Path, is_compressed: bool) -> None:
    mask = ring_mask()
    packed = coco.encode(np.asfortranarray(mask))
    flat = mask.T.ravel()
    counts = np.diff(np.flatnonzero(np.diff(flat, prepend=0)), prepend=0, append=flat.size).tolist()
    rle = {"size": [48, 64], "counts": packed["counts"].decode() if is_compressed else counts}
    out = converted(tmp_path, one_image(tmp_path, {"segmentation": rle}))
    (sample,) = samples_of(out, task="building_segmentation")

    assert np.array_equal(rasterize(sample.regions[0], 48, 64), mask.astype(bool))


def test_parts_are_one_object_and_boxes_are_corners(tmp_path: Path) -> None:
    parts = {"segmentation": [[4, 4, 12, 4, 12, 12, 4, 12], [30, 30, 40, 30, 40, 40, 30, 40]]}
    out = converted(tmp_path, one_image(tmp_path, parts, SQUARE))
    (sample,) = samples_of(out, task="instance_segmentation")
    assert len(sample.regions) == 2 and "2 buildings" in sample.answer
    expected = coco.decode(coco.merge(coco.frPyObjects(parts["segmentation"], 1024, 1024))).astype(bool)
    full = [np.array(ring).reshape(-1, 2) / (64, 48) * 1024 for ring in parts["segmentation"]]
    expected = coco.decode(coco.merge(coco.frPyObjects([ring.ravel().tolist() for ring in full], 1024, 1024)))
    assert overlap(drawn(sample.regions[0]), expected.astype(bool)) > 0.999
    answers = [sample.answer for sample in samples_of(out, task="object_detection")]
    assert answers[0] == "building [62, 83, 625, 833]; building [125, 167, 375, 500]"
    assert answers[1] == "2 buildings"


def test_a_box_alone_is_x_y_width_height_and_no_mask(tmp_path: Path) -> None:
    out = converted(tmp_path, one_image(tmp_path, {"segmentation": [], "bbox": [16, 12, 32, 24]}))
    assert [sample.task for sample in samples_of(out)] == ["object_detection"] * 2
    assert samples_of(out)[0].answer == "building [250, 250, 750, 750]"
    assert "box alone" in (out / "CONVERT.md").read_text(encoding="utf-8")


def test_the_project_that_roboflow_lists_as_a_category_is_no_class(tmp_path: Path) -> None:
    categories = [
        {"id": 0, "name": "buildings", "supercategory": "none"},
        {"id": 1, "name": "building", "supercategory": "buildings"},
        {"id": 2, "name": "road", "supercategory": "buildings"},
    ]
    file = one_image(tmp_path, SQUARE)
    file.write_text(json.dumps({**json.loads(file.read_text()), "categories": categories}))
    out = converted(tmp_path, file, "--negatives", "1")
    (negative,) = [sample for sample in samples_of(out) if "no" in sample.answer.casefold().split()]
    assert "roads" in negative.answer


def test_a_group_is_in_the_mask_and_in_no_count(tmp_path: Path) -> None:
    mask = np.zeros((48, 64), dtype=np.uint8)
    mask[30:, 40:] = 1
    packed = coco.encode(np.asfortranarray(mask))
    group = {"segmentation": {"size": [48, 64], "counts": packed["counts"].decode()}, "iscrowd": 1}
    out = converted(tmp_path, one_image(tmp_path, SQUARE, group))
    (sample,) = samples_of(out)
    assert sample.task == "building_segmentation"
    assert drawn(sample.regions[0])[900, 900] and drawn(sample.regions[0])[300, 300]


def test_a_class_that_is_not_there_is_a_negative(tmp_path: Path) -> None:
    out = converted(tmp_path, one_image(tmp_path, SQUARE, names={1: "building", 9: "AirPlane"}), "--negatives", "1")
    (row,) = [row for row in rows_of(out) if json.loads(row["metadata"]) == {"polygons": []}]
    sample = read_sample(row, 0)
    assert not sample.regions and "airplane" in sample.answer.replace("air plane", "airplane")


def test_a_demo_set_comes_back(tmp_path: Path) -> None:
    """Dataset → COCO → dataset: IoU 0.999 at 1,024² of every region, polygons and run lengths in turn."""
    images, annotations, truths = [], [], {}
    for number, row in enumerate(demo_rows("train", 6)):
        if row["task"] == "instance_segmentation":
            sample = read_sample(row, number)
            name = f"{number}.png"
            (tmp_path / "images").mkdir(exist_ok=True)
            (tmp_path / "images" / name).write_bytes(row["image"]["bytes"])
            truths[row["image"]["bytes"]] = sample.regions
            for region in sample.regions:
                polygons = [(ring * 256).ravel().tolist() for ring in region]
                runs = {"size": [1024, 1024], "counts": run_lengths(region, 1024, 1024)}
                annotations.append((len(images), 1, {"segmentation": runs if len(annotations) % 2 else polygons}))
            images.append((name, 256, 256))
    out = converted(tmp_path, coco_file(tmp_path / "labels.json", images, annotations))
    samples = samples_of(out, task="instance_segmentation")
    assert len(samples) == len(truths) > 2
    for sample in samples:
        expected = truths[sample.image_source["bytes"]]
        assert len(sample.regions) == len(expected)
        for region, truth in zip(sample.regions, expected, strict=True):
            assert overlap(drawn(region), drawn(truth)) >= 0.999


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("is_mask", [True, False])
def test_turned_images(tmp_path: Path, orientation: int, is_mask: bool) -> None:
    """Sizes as stored: annotations are turned with the image. Its upper left quarter is another one upright."""
    picture(tmp_path / "images" / "a.jpg", (64, 48), orientation)
    mask = np.zeros((48, 64), dtype=np.uint8)
    mask[:24, :32] = 1
    rle = {"size": [48, 64], "counts": coco.encode(np.asfortranarray(mask))["counts"].decode()}
    shape = rle if is_mask else [[0, 0, 32, 0, 32, 24, 0, 24]]
    file = coco_file(tmp_path / "labels.json", [("a.jpg", 64, 48)], [(0, 1, {"segmentation": shape})])
    sample = samples_of(converted(tmp_path, file), task="building_segmentation")[0]
    seen = drawn(sample.regions[0], 64)
    corners = {3: (slice(32, 64), slice(32, 64)), 6: (slice(0, 32), slice(32, 64))}
    expected = np.zeros((64, 64), dtype=bool)
    expected[corners[orientation]] = True
    assert np.array_equal(seen, expected)


def test_sizes_tell_that_annotations_are_upright(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.jpg", (64, 48), 6)
    shape = [[0, 0, 24, 0, 24, 32, 0, 32]]
    file = coco_file(tmp_path / "labels.json", [("a.jpg", 48, 64)], [(0, 1, {"segmentation": shape})])
    sample = samples_of(converted(tmp_path, file), task="building_segmentation")[0]
    assert drawn(sample.regions[0], 64)[:32, :32].all() and drawn(sample.regions[0], 64).sum() == 32 * 32


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"category_id": 5}, "category_id 5 is none of the categories"),
        ({"image_id": 5}, "image_id 5 is none of the images"),
        ({"segmentation": [[1, 2, float("nan"), 4, 5, 6]]}, "finite"),
        ({"segmentation": [[1, 2, 3, 4]]}, "three points"),
        ({"segmentation": [], "bbox": [1, 2, -3, 4]}, "x0 <= x1"),
        ({"segmentation": {"size": [48, 64], "counts": [1, 2]}}, "add up"),
    ],
)
def test_what_would_make_labels_wrong_is_an_error(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SatlisaError, match=said) as caught:
        converted(tmp_path, one_image(tmp_path, SQUARE, changes))
    assert "labels.json: annotation 1" in str(caught.value) and not (tmp_path / "out").exists()


def test_what_changes_no_label_is_counted(tmp_path: Path) -> None:
    flat = {"segmentation": [[1, 1, 9, 9, 5, 5]]}
    outside = {"segmentation": [[100, 100, 120, 100, 120, 120]]}
    over = {"segmentation": [[48, 36, 80, 36, 80, 60, 48, 60]]}
    file = one_image(tmp_path, SQUARE, flat, outside, over)
    content = json.loads(file.read_text(encoding="utf-8"))
    content["images"].append(dict(id=7, file_name="lost.png", width=1, height=1))
    file.write_text(json.dumps(content), encoding="utf-8")
    out = converted(tmp_path, file)
    report = (out / "CONVERT.md").read_text(encoding="utf-8")
    assert "2 objects without area" in report and "annotation 2" in report
    assert "1 images without a file" in report and "lost.png" in report and "clipped" in report
    (sample,) = samples_of(out, task="instance_segmentation")
    assert drawn(sample.regions[1], 64)[48:, 48:].all() and drawn(sample.regions[1], 64).sum() == 256
    with pytest.raises(SatlisaError, match="annotation 1"):
        convert("coco", file, tmp_path / "images", tmp_path / "strict", "--strict")


def test_an_id_twice_is_an_error(tmp_path: Path) -> None:
    file = one_image(tmp_path, SQUARE)
    content = json.loads(file.read_text(encoding="utf-8"))
    content["images"] *= 2
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(SatlisaError, match="twice"):
        converted(tmp_path, file)


def test_splits_by_file(tmp_path: Path) -> None:
    for name in ("train2017", "val2017"):
        picture(tmp_path / name / f"{name}.png")
        (tmp_path / "annotations").mkdir(exist_ok=True)
        coco_file(tmp_path / "annotations" / f"instances_{name}.json", [(f"{name}.png", 64, 48)], [(0, 1, SQUARE)])
    convert("coco", tmp_path, tmp_path / "out")
    assert len(rows_of(tmp_path / "out")) == len(rows_of(tmp_path / "out", "validation")) == 4


def test_a_folder_per_split_with_equal_file_names(tmp_path: Path) -> None:
    """Roboflow's layout."""
    for number, name in enumerate(("train", "valid", "test")):
        picture(tmp_path / name / "a.png", (64 + number, 48))
        coco_file(tmp_path / name / "_annotations.coco.json", [("a.png", 64 + number, 48)], [(0, 1, SQUARE)])
    convert("coco", tmp_path, tmp_path / "out", "--strict")
    for number, split in enumerate(("train", "validation", "test")):
        assert {sample.image.width for sample in samples_of(tmp_path / "out", split)} == {64 + number}
