"""The command `infer_dataset.py` with made-up answers: its options, its report, its mistakes."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import satlisa.data.dataset
import satlisa.evaluation.evaluate
import satlisa.pretrained.model_directory
from satlisa.evaluation.evaluate import evaluate
from satlisa.evaluation.report import read_results
from satlisa.inference.generation import Answer
from tests.helpers.evaluation_runs import load_script
from tests.helpers.made_up_answers import BUILDINGS, FLOOD, MODEL, REPLIES, SCENE, answering, make_rows


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`infer_dataset.py`'s main with a made-up model and dataset."""
    module = load_script()
    asked: dict[str, Any] = {}

    def load_rows(dataset: str, split: str) -> Any:
        asked.update(dataset=dataset, split=split)
        return make_rows(*[SCENE, BUILDINGS, FLOOD] * 4)

    def load_model(model_dir: str, device: str | None) -> Any:
        asked.update(model_dir=model_dir, device=device)
        return MODEL

    monkeypatch.setattr(satlisa.pretrained.model_directory, "load_model", load_model)
    monkeypatch.setattr(satlisa.pretrained.model_directory, "find_model_dir", Path)
    monkeypatch.setattr(satlisa.data.dataset, "load_rows", load_rows)

    def call(*arguments: str, replies: dict[str, Answer] = REPLIES) -> int:
        fake = functools.partial(evaluate, answer_fn=answering(replies))
        monkeypatch.setattr(satlisa.evaluation.evaluate, "evaluate", fake)
        monkeypatch.setattr(sys, "argv", ["infer_dataset.py", *arguments])
        return int(module.main())

    call.asked = asked  # type: ignore[attr-defined]
    return call


def test_command_writes_the_report(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "eval"
    assert command("--device", "cpu", "--samples_per_task", "2", "--output_dir", str(out)) == 0
    assert command.asked == {
        "model_dir": "rahuldshetty/satellite-omni-lisa",
        "device": "cpu",
        "dataset": "their-dataset",
        "split": "validation",
    }
    results = read_results(out / "results.json")
    assert results["settings"]["dataset"] == "their-dataset" and len(results["samples"]) == 6
    assert sorted(path.name for path in out.iterdir()) == ["REPORT.md", "images", "results.json"]
    assert (out / "images/sample_002_input.png").is_file() and (out / "images/sample_000_gt_mask.png").is_file()
    printed = capsys.readouterr().out
    assert str(out / "REPORT.md") in printed and "Masks: gIoU 0.667" in printed and "building_segmentation" in printed


def test_command_options(command: Any, tmp_path: Path) -> None:
    named = [
        "--model_repo",
        "a/b",
        "--dataset",
        "demo",
        "--split",
        "test",
        "--seg_tasks",
        "x,y",
        "--seed",
        "4",
    ]
    assert command(*named, "--output_dir", str(tmp_path / "eval")) == 0
    assert (command.asked["model_dir"], command.asked["dataset"], command.asked["split"]) == (
        "a/b",
        "demo",
        "test",
    )
    settings = read_results(tmp_path / "eval/results.json")["settings"]
    assert (settings["seg_tasks"], settings["seed"], settings["dataset"]) == (["x", "y"], 4, "demo")


def test_two_evaluations_are_compared(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        assert command("--samples_per_task", "0", "--output_dir", str(tmp_path / name)) == 0
    capsys.readouterr()
    results = [str(tmp_path / name / "results.json") for name in "ab"]
    assert command("--compare", *results, "--output_dir", str(tmp_path / "c")) == 0
    shown, written = capsys.readouterr().out, (tmp_path / "c" / "COMPARE.md").read_text()
    for text in ("building_segmentation", "giou"):
        assert text in shown and text.replace("_", "\\_") in written
    assert command("--compare", results[0], str(tmp_path / "nothing.json")) == 2
    assert "nothing.json" in capsys.readouterr().err
    assert not (tmp_path / "compare_output").exists()


def test_command_says_one_line_about_mistakes(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--batch_size", "0") == 2
    (tmp_path / "photo.jpg").write_text("x")
    assert command("--output_dir", str(tmp_path)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0] == "infer_dataset.py: --batch_size: expected at least 1, found 0"
    assert command.asked == {}  # no model was loaded for that


def test_command_fails_where_nothing_was_answered(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--output_dir", str(tmp_path / "eval"), replies={}) == 1
    assert "no sample was answered; the first error: KeyError" in capsys.readouterr().err
    assert read_results(tmp_path / "eval/results.json")["tasks"]["flood_assessment"]["errors"] == 3


def test_a_downloaded_model_names_no_folder_to_be_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its `dataset` would be read from this machine; one in a folder here may name another folder."""
    (tmp_path / "private").mkdir()
    model = SimpleNamespace(config=SimpleNamespace(dataset=str(tmp_path / "private")))
    monkeypatch.setattr(satlisa.pretrained.model_directory, "load_model", lambda *_: model)
    monkeypatch.setattr(satlisa.pretrained.model_directory, "find_model_dir", Path)
    (tmp_path / "here").mkdir()
    for name, said in (
        ("somebody/model", "is not a hub dataset, and a downloaded model may only name"),
        ("here", "private"),
    ):
        place = name if "/" in name else str(tmp_path / name)
        arguments = ["--model_dir", place, "--output_dir", str(tmp_path / "out"), "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", ["infer_dataset.py", *arguments])
        assert load_script().main() == 2
        line = capsys.readouterr().err
        assert said in line and ("a downloaded model may" in line) == ("/" in name)
