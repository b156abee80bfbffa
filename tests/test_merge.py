"""`python -m satlisa.merge`."""

from pathlib import Path

import pytest

from satlisa.merge import main
from satlisa.model.satlisa import SatLisa
from satlisa.pretrained.model_directory import load_model


def test_the_command_writes_a_folder_and_says_what_was_merged(
    saved: tuple[SatLisa, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["--model_dir", str(saved[1]), "--output", str(out)]) == 0
    line = capsys.readouterr().out
    assert f"{out}: 13 layers merged" in line and "rounding takes 0.00%" in line
    assert load_model(out, "cpu").config.is_merged
    capsys.readouterr()
    assert main(["--model_dir", str(saved[1]), "--output", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m satlisa.merge: --output: ") and "not empty" in error and error.count("\n") == 1


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model_dir", str(tmp_path / "nothing"), "--output", str(tmp_path / "out")]) == 2
    assert "no such model directory" in capsys.readouterr().err
    with pytest.raises(SystemExit) as left:
        main(["--model_dir", "a/b", "--output", "x", "--precision", "int4"])
    assert left.value.code == 2
