"""The file of a table: what is kept, repaired and refused."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from satlisa.errors import SatlisaError
from satlisa.inference.table import Table, read_rows

IDENTITY = {"files of --model_dir": "abc", "prompts": ["a", "b"], "--seed": None}


def row(image: str, prompt: str, error: str | None = None, size: int | None = 7) -> dict[str, Any]:
    return {"image": image, "prompt": prompt, "text": f"{image} {prompt} ü", "bytes": size, "error": error}


ROWS = [row("x.png", "a"), row("x.png", "b"), row("y.png", "a", "broken"), row("\udcff.png", "b")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "results.jsonl"


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    with Table(path, IDENTITY) as table:
        table.add(rows)
    return path


def test_rows_come_back_from_an_earlier_run(path: Path) -> None:
    write(path, ROWS[:3])
    with Table(path, json.loads(json.dumps(IDENTITY))) as table:
        assert list(table.done) == [("x.png", "a"), ("x.png", "b"), ("y.png", "a")]
        assert (table.num_answered, table.first_error) == (2, "broken")
        table.add(ROWS[3:])
        assert table.num_answered == 3
    assert list(read_rows(path)) == ROWS
    assert sorted(file.name for file in path.parent.iterdir()) == ["results.jsonl", "results.jsonl.run.json"]


def test_a_cut_anywhere_is_repaired(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Complete lines stay, the rest is written again: no line is lost, none is doubled."""
    caplog.set_level(logging.INFO)
    complete = write(path, ROWS).read_bytes()
    ends = [place + 1 for place, letter in enumerate(complete) if letter == 10]
    for size in sorted({*range(0, len(complete), 11), *(end - 1 for end in ends), *ends}):
        path.write_bytes(complete[:size])
        with Table(path, IDENTITY) as table:
            kept = complete[:size].count(b"\n")
            assert len(table.done) == kept
            table.add(ROWS[kept:])
        assert path.read_bytes() == complete
    assert "line 2 is incomplete and is written again" in caplog.text


def test_short_writes_are_completed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.write
    monkeypatch.setattr(os, "write", lambda file, data: whole(file, data[:5]))
    assert list(read_rows(write(path, ROWS))) == ROWS


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"files of --model_dir": "def"}, "files of --model_dir was 'abc', is 'def'"),
        ({"prompts": ["a"]}, r"prompts was \['a', 'b'\], is \['a'\]"),
        ({"--seed": 1}, "--seed was None, is 1"),
    ],
)
def test_another_run_is_refused_and_nothing_changes(path: Path, change: dict[str, Any], words: str) -> None:
    before = write(path, ROWS).read_bytes()
    with pytest.raises(SatlisaError, match=f"is of another run .*{words}.*name another --output, or delete the file"):
        Table(path, IDENTITY | change).__enter__()
    assert path.read_bytes() == before
    path.unlink()  # as the message says
    with Table(path, IDENTITY | change) as table:
        assert not table.done


@pytest.mark.parametrize("run", [None, b"", b"\xff"])
def test_files_of_others_are_refused(path: Path, run: bytes | None) -> None:
    path.parent.mkdir()
    path.write_text("mine\n")
    if run is not None:
        path.with_name("results.jsonl.run.json").write_bytes(run)
    with pytest.raises(
        SatlisaError, match=r"holds something, and results\.jsonl\.run\.json beside it.*nothing was changed"
    ):
        Table(path, IDENTITY).__enter__()
    assert path.read_text() == "mine\n"


@pytest.mark.parametrize("line", [b"\0\0\0\n", b'{"image": "x"}\n', b"[]\n", b"\n"])
def test_damaged_lines_are_named(path: Path, line: bytes) -> None:
    lines = write(path, ROWS).read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], line, *lines[1:]]))
    with pytest.raises(SatlisaError, match=r"results\.jsonl, line 2 is .*remove it"):
        Table(path, IDENTITY).__enter__()


def test_two_runs_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("satlisa.runtime.lock._TIMEOUT", 0.1)
    with Table(path, IDENTITY), pytest.raises(SatlisaError, match=r"another run is at work in .*results\.jsonl"):
        Table(path, IDENTITY).__enter__()
    with Table(path, IDENTITY):
        pass


def test_a_full_disk_is_named_and_the_table_goes_on_afterwards(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.write

    def full(file: int, data: bytes) -> int:
        if len(data) > 30:
            return whole(file, data[:30])
        raise OSError(28, "No space left on device")

    with Table(path, IDENTITY) as table:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(
            SatlisaError, match=r"--output: .*No space left.*make room, then run the same command again"
        ):
            table.add(ROWS)
    monkeypatch.undo()
    with Table(path, IDENTITY) as table:
        table.add(ROWS[len(table.done) :])
    assert list(read_rows(path)) == ROWS


def test_an_image_that_changed_is_named(path: Path, tmp_path: Path) -> None:
    image = tmp_path / "x.png"
    image.write_bytes(b"1234567")
    gone = str(tmp_path / "gone.png")
    write(path, [row(str(image), "a"), row(gone, "a", "no such file", None)])
    with Table(path, IDENTITY) as table:
        table.check_unchanged([str(image), gone, str(tmp_path / "new.png")], ["a", "b"])
        image.write_bytes(b"12345678")
        with pytest.raises(SatlisaError, match=r"x\.png is not the file .*size was 7, is 8 bytes.*remove its lines"):
            table.check_unchanged([str(image)], ["a", "b"])
