"""YOLO → rows: a round trip, boxes by their centre, turned images, malformed lines."""

from pathlib import Path

import numpy as np
import pytest

from satlisa.data.rows import read_sample
from satlisa.data.synthetic.rows import demo_rows
from satlisa.errors import SatlisaError
from tests.helpers.converting import convert, drawn, overlap, picture, rows_of, samples_of


def folder_of(folder: Path, *lines: str, name: str = "a.png", orientation: int = 1, split: str = "train") -> Path:
    picture(folder / "images" / split / name, (64, 48), orientation)
    labels = (folder / "labels" / split / name).with_suffix(".txt")
    labels.parent.mkdir(parents=True, exist_ok=True)
    labels.write_text("\n".join(lines))
    (folder / "data.yaml").write_text("path: .\ntrain: images/train\nnames: {0: building, 1: plane}\n")
    return folder / "data.yaml"


def test_a_demo_set_comes_back(tmp_path: Path) -> None:
    file, truths = folder_of(tmp_path), {}
    for number, row in enumerate(demo_rows("train", 6)):
        if row["task"] == "instance_segmentation":
            sample = read_sample(row, number)
            lines = [f"0 {' '.join(f'{x:.6f}' for x in region[0].ravel())}" for region in sample.regions]
            (tmp_path / "images" / "train" / f"{number}.png").write_bytes(row["image"]["bytes"])
            (tmp_path / "labels" / "train" / f"{number}.txt").write_text("\n".join(lines))
            truths[row["image"]["bytes"]] = sample.regions
    convert("yolo", file, tmp_path / "out")
    samples = [s for s in samples_of(tmp_path / "out", task="instance_segmentation") if s.regions]
    assert len(samples) == len(truths) > 2
    for sample in samples:
        for region, truth in zip(sample.regions, truths[sample.image_source["bytes"]], strict=True):
            assert overlap(drawn(region), drawn(truth)) >= 0.999


def test_a_box_is_given_by_its_centre(tmp_path: Path) -> None:
    convert("yolo", folder_of(tmp_path, "1 0.5 0.5 0.25 0.5"), tmp_path / "out")
    assert samples_of(tmp_path / "out", task="object_detection")[0].answer == "plane [375, 250, 625, 750]"


@pytest.mark.parametrize("exif", ["upright", "stored"])
def test_turned_images_are_labelled_upright(tmp_path: Path, exif: str) -> None:
    file = folder_of(tmp_path, "0 0 0 0.5 0 0.5 0.5 0 0.5", name="a.jpg", orientation=6)
    convert("yolo", file, tmp_path / "out", "--exif", exif)
    mask = drawn(samples_of(tmp_path / "out", task="building_segmentation")[0].regions[0], 64)
    expected = np.zeros((64, 64), dtype=bool)
    expected[:32, 32 * (exif == "stored") :][:, :32] = True
    assert np.array_equal(mask, expected)


def test_an_image_without_labels_is_a_negative_and_val_a_split(tmp_path: Path) -> None:
    file = folder_of(tmp_path, "0 0.1 0.1 0.5 0.1 0.5 0.5")
    picture(tmp_path / "images" / "val" / "b.png")
    file.write_text(file.read_text() + "val: images/val\n")
    convert("yolo", file, tmp_path / "out")
    rows = rows_of(tmp_path / "out", "validation")
    assert any(row["metadata"] == '{"polygons":[]}' for row in rows)
    assert samples_of(tmp_path / "out", "validation", "object_detection")[-1].answer == "None"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("7 0.5 0.5 0.1 0.1", "class 7"),
        ("0 12 30 50 30 40 40", r"pixels\?"),
        ("0 0.1 0.2 0.3", "found 3 numbers"),
        ("0 0.1 nan 0.3 0.4 0.5 0.6", "finite"),
        ("building 0.1 0.2 0.3 0.4", "building"),
    ],
)
def test_malformed_lines_are_errors(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(SatlisaError, match=said) as caught:
        convert("yolo", folder_of(tmp_path, "0 0.5 0.5 0.1 0.1", line), tmp_path / "out")
    assert "a.txt: line 2" in str(caught.value)


def test_an_outline_without_area_is_counted(tmp_path: Path) -> None:
    convert("yolo", folder_of(tmp_path, "0 0.5 0.5 0.1 0.1", "0 0.1 0.1 0.2 0.2 0.3 0.3"), tmp_path / "out")
    assert "a.txt: line 2" in (tmp_path / "out" / "CONVERT.md").read_text()
