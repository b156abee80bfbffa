"""The command: what it refuses, what it reports, and that its folder is a dataset."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from satlisa.convert.command import FORMATS, PROG, main
from satlisa.data.dataset import load_rows
from satlisa.data.rows import read_sample
from satlisa.errors import SatlisaError
from tests.helpers.converting import convert, picture, rows_of
from tests.helpers.paths import ROOT


def classes(folder: Path, count: int = 20) -> Path:
    for number in range(count):
        picture(folder / "in" / ("Forest", "River")[number % 2] / f"im{number}.png", (8 + number, 9))
    return folder / "in"


@pytest.mark.usefixtures("own_cache")
def test_the_folder_is_a_dataset(tmp_path: Path) -> None:
    convert("folders", classes(tmp_path), tmp_path / "out")
    counts = {split: len(load_rows(str(tmp_path / "out"), split)) for split in ("train", "validation", "test")}
    assert counts == {"train": 18, "validation": 1, "test": 1}
    rows = load_rows(str(tmp_path / "out"), "train")
    assert read_sample(rows[0], 0).answer in ("Forest", "River")


def test_equal_seeds_give_equal_rows(tmp_path: Path) -> None:
    folder = classes(tmp_path)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        convert("folders", folder, tmp_path / name, "--seed", seed)
    assert rows_of(tmp_path / "a") == rows_of(tmp_path / "b") != rows_of(tmp_path / "c")


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    folder, out = classes(tmp_path, 2), tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    for options in ([], ["--overwrite"]):
        with pytest.raises(SatlisaError, match="name another folder"):
            convert("folders", folder, out, *options)
    convert("folders", folder, tmp_path / "new", "--split", "1")
    with pytest.raises(SatlisaError, match="--overwrite"):
        convert("folders", folder, tmp_path / "new")
    (tmp_path / "new" / "mine.txt").write_text("mine")
    convert("folders", folder, tmp_path / "new", "--split", "1", "--overwrite", "--source", "second")
    assert rows_of(tmp_path / "new")[0]["source"] == "second"
    assert (tmp_path / "new" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--split", "0.9,0.2"], "add up to 1.1"),
        (["--split", "most"], "--split"),
        (["--tasks", "sums"], "--tasks"),
        (["--negatives", "2"], "--negatives"),
        (["--group", "("], "regular expression"),
        (["--names", "missing.json"], "no such file"),
    ],
)
def test_wrong_options_are_one_line(tmp_path: Path, options: list[str], said: str) -> None:
    with pytest.raises(SatlisaError, match=said):
        convert("folders", classes(tmp_path, 2), tmp_path / "out", *options)


def test_errors_are_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["convert", "folders", str(tmp_path / "nowhere"), str(tmp_path / "out")])
    assert main() == 2
    assert capsys.readouterr().err.startswith(f"{PROG}: {tmp_path / 'nowhere'}: expected a folder")


def test_names_and_templates_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text(json.dumps({"Forest": "Wald", "River": "Fluss"}))
    wording = {"scene_classification": {"questions": ["Was ist das?"], "answers": ["Das ist {thing}"]}}
    (tmp_path / "de.json").write_text(json.dumps(wording))
    files = ["--names", tmp_path / "names.json", "--templates", tmp_path / "de.json"]
    convert("folders", classes(tmp_path, 2), tmp_path / "out", "--split", "1", *files)
    texts = [row["conversations"] for row in rows_of(tmp_path / "out")]
    assert "Was ist das?" in texts[0] and "Das ist Wald" in texts[0] and "Das ist Fluss" in texts[1]


def test_the_page_names_every_format() -> None:
    page = (ROOT / "docs" / "convert.md").read_text(encoding="utf-8")
    for name in FORMATS:
        assert f"\n## {name}\n" in page and f"python -m satlisa.convert {name} " in page


@pytest.mark.integration
def test_help_needs_no_torch(tmp_path: Path) -> None:
    code = "import sys, satlisa.convert.command as c\ntry: c.parser().parse_args(['--help'])\nexcept SystemExit: pass\n"
    code += "assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0 and "yolo" in done.stdout, done.stderr
