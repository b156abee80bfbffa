"""Captions → rows, from RSICD's JSON and from CSV."""

import json
from pathlib import Path

import pytest

from satlisa.errors import SatlisaError
from tests.helpers.converting import convert, picture, rows_of, samples_of


def test_rsicd(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "airport_1.jpg")
    picture(tmp_path / "images" / "park_2.jpg")
    sentences = [{"raw": "many planes ."}, {"raw": "many planes ."}, {"raw": "an airport ."}]
    images = [
        {"filename": "airport_1.jpg", "split": "train", "sentences": sentences},
        {"filename": "park_2.jpg", "split": "val", "sentences": [{"raw": "a park ."}]},
    ]
    (tmp_path / "dataset.json").write_text(json.dumps({"images": images, "dataset": "rsicd"}))
    convert("captions", tmp_path / "dataset.json", tmp_path / "images", tmp_path / "out")
    assert [sample.answer for sample in samples_of(tmp_path / "out")] == ["Many planes .", "An airport ."]
    assert len(rows_of(tmp_path / "out", "validation")) == 1
    report = (tmp_path / "out" / "CONVERT.md").read_text()
    assert "1 captions that an image has twice" in report and "airport_1.jpg: many planes ." in report


def test_csv(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "c.csv").write_text('filename,caption\na.png,"Roofs, and trees."\n', encoding="utf-8-sig")
    convert("captions", tmp_path / "c.csv", tmp_path / "images", tmp_path / "out", "--split", "1")
    assert samples_of(tmp_path / "out")[0].answer == "Roofs, and trees."
    (tmp_path / "c.csv").write_text("filename,words\na.png,x\n")
    with pytest.raises(SatlisaError, match="no column caption; found filename, words"):
        convert("captions", tmp_path / "c.csv", tmp_path / "images", tmp_path / "out2")
    (tmp_path / "c.csv").write_text("filename,caption\na.png\n")
    with pytest.raises(SatlisaError, match="line 2"):
        convert("captions", tmp_path / "c.csv", tmp_path / "images", tmp_path / "out2")
