"""Questions → rows, from RSVQA's, FloodNet's and plain files."""

import json
from pathlib import Path

import pytest

from satlisa.errors import SatlisaError
from tests.helpers.converting import convert, picture, samples_of


def rsvqa(folder: Path) -> tuple[Path, Path]:
    picture(folder / "images" / "7.tif")
    questions = [
        {"id": 0, "img_id": 7, "type": "presence", "question": "Is there a road?", "answers_ids": [0], "active": True},
        {"id": 1, "active": False},
        {"id": 2, "img_id": 7, "question": "How many roads?", "answers_ids": [2], "active": True},
    ]
    answers = [
        {"id": 0, "question_id": 0, "answer": "yes", "active": True},
        {"id": 2, "question_id": 2, "answer": 3, "active": True},
    ]
    paths = folder / "LR_split_train_questions.json", folder / "LR_split_train_answers.json"
    paths[0].write_text(json.dumps({"questions": questions}))
    paths[1].write_text(json.dumps({"answers": answers}))
    return paths


def test_rsvqa(tmp_path: Path) -> None:
    convert("vqa", *rsvqa(tmp_path), tmp_path / "images", tmp_path / "out", "--split", "1")
    samples = samples_of(tmp_path / "out")
    assert [(s.turns[-1].text, s.answer) for s in samples] == [("Is there a road?", "yes"), ("How many roads?", "3")]
    assert "not active" in (tmp_path / "out" / "CONVERT.md").read_text()


def test_floodnet_and_csv(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "6651.JPG")
    entry = {"Image_ID": "6651.JPG", "Question": "Is it flooded?", "Ground_Truth": "non flooded"}
    (tmp_path / "q.json").write_text(json.dumps({"0": entry, "1": {**entry, "Question": "Roads?", "Ground_Truth": 2}}))
    convert("vqa", tmp_path / "q.json", tmp_path / "images", tmp_path / "out", "--split", "1")
    assert [sample.answer for sample in samples_of(tmp_path / "out")] == ["non flooded", "2"]
    (tmp_path / "q.csv").write_text("image,question,answer\n6651.JPG,Roads?,2\n")
    convert("vqa", tmp_path / "q.csv", tmp_path / "images", tmp_path / "out2", "--split", "1")
    assert [sample.answer for sample in samples_of(tmp_path / "out2")] == ["2"]
    (tmp_path / "q.json").write_text(json.dumps([{**entry, "Ground_Truth": None}]))
    with pytest.raises(SatlisaError, match="entry 0: expected a text"):
        convert("vqa", tmp_path / "q.json", tmp_path / "images", tmp_path / "out3")
