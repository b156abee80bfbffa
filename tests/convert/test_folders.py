"""One folder per class → classes."""

from pathlib import Path

import pytest

from satlisa.errors import SatlisaError
from tests.helpers.converting import convert, picture, rows_of, samples_of


def test_classes_in_words(tmp_path: Path) -> None:
    for name in ("AnnualCrop/AnnualCrop_1.jpg", "sea_lake/sea_lake_1.jpg"):
        picture(tmp_path / "in" / name)
    convert("folders", tmp_path / "in", tmp_path / "out", "--split", "1")
    samples = samples_of(tmp_path / "out")
    assert [sample.answer for sample in samples] == ["Annual crop", "Sea lake"]
    assert {sample.task for sample in samples} == {"scene_classification"}


def test_folders_of_splits(tmp_path: Path) -> None:
    for name in ("train/Forest/1.jpg", "valid/Forest/2.jpg", "test/River/3.jpg"):
        picture(tmp_path / "in" / name)
    convert("folders", tmp_path / "in", tmp_path / "out")
    assert [len(rows_of(tmp_path / "out", split)) for split in ("train", "validation", "test")] == [1, 1, 1]


def test_an_image_beside_the_folders_is_an_error(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "Forest" / "1.jpg")
    picture(tmp_path / "in" / "lost.jpg")
    with pytest.raises(SatlisaError, match=r"lost\.jpg: expected images in a folder per class"):
        convert("folders", tmp_path / "in", tmp_path / "out")


def test_a_broken_image_is_counted(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "Forest" / "1.jpg")
    (tmp_path / "in" / "Forest" / "2.jpg").write_bytes(b"no image")
    convert("folders", tmp_path / "in", tmp_path / "out", "--split", "1")
    assert "1 images that cannot be read" in (tmp_path / "out" / "CONVERT.md").read_text(encoding="utf-8")
