"""`python -m satlisa.check` and `train.py --check`: options and exit codes."""

from pathlib import Path

import pytest

from satlisa.check.command import main
from satlisa.cli import train
from tests.helpers.broken_rows import write_parquet
from tests.helpers.checking import rows_of

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("own_cache")]


def test_exit_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRESET", "demo")
    rows = rows_of("building_seg")[:4]
    write_parquet(tmp_path / "good", {"train": rows})
    write_parquet(tmp_path / "bad", {"train": [{**rows[0], "metadata": "{}"}, *rows[1:]]})
    assert main(["good", "--processes", "1"]) == 0
    assert capsys.readouterr().out == "no problem found; the report: check/CHECK.md\n"
    monkeypatch.setenv("DATASET", "bad")
    assert train.main(["--check", "--output_dir", "there"]) == 1
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("train split of bad: 1 row has a segmentation task") and "(row 0)" in first
    assert last == "1 problem; the report: there/CHECK.md" and (tmp_path / "there" / "CHECK.md").is_file()
    assert not (tmp_path / "model_dir").exists()


def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["./nowhere"]) == 2
    assert "no such folder" in capsys.readouterr().err
    monkeypatch.setenv("MAX_SKIP", "many")
    assert train.main(["--check"]) == 2
    assert capsys.readouterr().err == "train.py: MAX_SKIP: expected a number from 0 to 1, found 'many'\n"
    with pytest.raises(SystemExit) as left:
        train.main(["--check", "--nonsense"])
    assert left.value.code == 2
