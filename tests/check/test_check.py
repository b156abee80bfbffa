"""A check as a whole: which rows are read, what is written, and that no weights are loaded."""

import json
from pathlib import Path
from typing import Any

import pytest

from satlisa.check.check import check
from satlisa.check.parts import open_parts
from satlisa.errors import SatlisaError
from satlisa.evaluation.report import escape
from satlisa.pretrained import base_models
from satlisa.training.settings import TrainConfig
from tests.helpers.broken_rows import write_parquet
from tests.helpers.checking import clean_rows, problems_of, rows_of

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("own_cache")]


def settings(**variables: str) -> TrainConfig:
    return TrainConfig.from_env({"PRESET": "demo", **variables})


def folders(tmp_path: Path) -> tuple[str, str]:
    for name in ("a", "b"):
        write_parquet(tmp_path / name, {split: clean_rows(split)[:10] for split in ("train", "validation")})
    return str(tmp_path / "a"), str(tmp_path / "b")


def test_the_rows_are_those_of_a_run(tmp_path: Path) -> None:
    one, other = folders(tmp_path)
    _, parts = open_parts(settings(DATASET=f"{one},{other}:0.3", MAX_SAMPLES="4", VAL_SAMPLES="6"))
    read = [(part.dataset, part.split, len(part.rows)) for part in parts if part.is_read]
    assert read[:2] == [(one, "train", 4), (other, "train", 4)]
    assert [split for _, split, _ in read[2:]] == ["validation"] * 2 and sum(count for *_, count in read[2:]) == 6
    rest = [len(part.rows) for part in parts if not part.is_read]
    assert sum(rest) == 14
    numbers = [ref.index for part in parts if part.dataset == other for ref in part.rows.rows(0, 0)]
    assert max(numbers) < 10  # in the dataset's own numbers


def test_datasets_are_named_and_compared(tmp_path: Path) -> None:
    one, other = folders(tmp_path)
    found = check(settings(DATASET=f"{one},{other}", VAL_SAMPLES="0"), tmp_path / "check", processes=1)
    assert found == []
    text = (tmp_path / "check" / "CHECK.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith(("| train |", "| validation |"))]
    assert {line.split(" | ")[1] for line in rows} == {escape(one), escape(other)}


def test_no_weights_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_models, "_load", lambda *_: pytest.fail("weights were loaded"))
    write_parquet(tmp_path / "rows", {"train": rows_of("flood")[:2]})
    stream = settings(DATASET=str(tmp_path / "rows"), STREAMING="1")
    assert check(stream, tmp_path / "check", processes=1) == []


def test_a_tokenizer_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(base_models, "snapshot_download", offline)
    write_parquet(tmp_path / "rows", {"train": rows_of("flood")[:2]})
    full = TrainConfig.from_env({"DATASET": str(tmp_path / "rows")})
    with pytest.raises(SatlisaError, match=r"cannot load 'Qwen/Qwen3\.5-0\.8B'"):
        check(full, tmp_path / "check")
    assert check(full, tmp_path / "check", estimate=True, processes=1) == []
    assert "with the tokenizer of the packaged demo" in (tmp_path / "check" / "CHECK.md").read_text(encoding="utf-8")


def test_what_is_written_and_what_is_not_replaced(tmp_path: Path) -> None:
    rows = {"train": rows_of("segmentation")[:6]}
    assert problems_of(tmp_path, rows) == []
    folder = tmp_path / "check"
    assert sorted(path.name for path in folder.iterdir()) == ["CHECK.md", "check_images"]
    assert len(list((folder / "check_images").iterdir())) == 6
    (folder / "check_images" / "mine.png").write_bytes(b"mine")
    (folder / "notes.txt").write_text("mine")
    again = settings(DATASET=str(tmp_path / "rows"), MAX_SAMPLES="3")
    assert check(again, folder, processes=1) == []
    assert sorted(path.name for path in (folder / "check_images").iterdir()) == [
        "00.jpg",
        "01.jpg",
        "02.jpg",
        "mine.png",
    ]
    assert (folder / "notes.txt").read_text() == "mine"
    (folder / "CHECK.md").write_text("# My own notes\n")
    with pytest.raises(SatlisaError, match=r"CHECK.md is not a report of this command"):
        check(again, folder, processes=1)
    assert (folder / "CHECK.md").read_text() == "# My own notes\n"


def test_the_summary_is_the_line_of_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    rows = [*rows_of("segmentation")[:4], {**rows_of("flood")[0], "conversations": json.dumps([])}]
    problems_of(tmp_path, {"train": rows}, MAX_SKIP="1")
    lines = [record.message for record in caplog.records if "looked at:" in record.message]
    said = "of 5 rows looked at: 4 mask rows, 1 that cannot be used"
    assert [line.endswith(said) for line in lines] == [True, True]  # as a run says it, and of all rows
