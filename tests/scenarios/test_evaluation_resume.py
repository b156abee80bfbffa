"""An evaluation that was interrupted reports what one that ran through reports."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from satlisa.errors import SatlisaError
from satlisa.evaluation.evaluate import evaluate
from satlisa.evaluation.partial_report import PartialReport
from satlisa.evaluation.report import write_report
from satlisa.evaluation.windows import EvalSettings
from tests.helpers.evaluation_runs import (
    BROKEN_ROW,
    NUM_CALLS,
    NUM_ROWS,
    SETTINGS,
    UNANSWERABLE,
    answering,
    comparable,
    made_up_rows,
)
from tests.helpers.made_up_answers import MODEL

pytestmark = pytest.mark.integration


def report(folder: Path, answer_fn: Any, settings: EvalSettings = SETTINGS, resume: bool = False) -> dict[str, Any]:
    with PartialReport(folder, resume=resume) as partial:
        results = evaluate(MODEL, made_up_rows(), settings, partial, answer_fn)
        write_report(results, partial.folder)
    return results


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    answer_fn = answering()
    report(folder, answer_fn)
    assert len(answer_fn.batches) == NUM_CALLS
    return folder


def test_the_whole_report_to_compare_with(uninterrupted: Path) -> None:
    """Errors are rows with their reason, counted per task; the first three picks of each task have pictures."""
    results, lines, pictures = comparable(uninterrupted)
    assert {task: (s["samples"], s["errors"]) for task, s in results["tasks"].items()} == {
        "building_segmentation": (14, 1),
        "vqa": (14, 1),
    }
    assert [entry["number"] for entry in results["samples"]] == list(range(NUM_ROWS))
    assert [entry["index"] for entry in results["samples"]] == [*range(1, NUM_ROWS, 2), *range(0, NUM_ROWS, 2)]
    errors = {entry["index"]: entry["error"] for entry in results["samples"] if entry["error"]}
    assert errors[19] == "ValueError: no answer to this one" and "metadata" in errors[BROKEN_ROW] and len(errors) == 2
    assert lines.count("### Errors: 1") == 2
    assert f"| 19 | {UNANSWERABLE} | ValueError: no answer to this one |" in lines
    assert sorted({name[:10] for name in pictures}) == [f"sample_{n:03d}" for n in (0, 1, 2, 14, 15, 16)]
    assert len({entry["iou"] for entry in results["samples"]}) > 5  # the answers do tell batches apart


def test_a_pick_that_fails_gives_its_pictures_to_no_other(tmp_path: Path) -> None:
    """Who gets pictures must not depend on which process comes first."""
    rows = made_up_rows().select([4, BROKEN_ROW, 8, 10])
    with PartialReport(tmp_path) as partial:
        results = evaluate(MODEL, rows, SETTINGS, partial, answering())
        write_report(results, partial.folder)
    assert [sorted(entry["images"]) for entry in results["samples"]] == [["input"], [], ["input"], []]


def interrupting(call: int) -> Any:
    """An answer_fn that is interrupted at a call."""

    def interrupt(number: int) -> None:
        if number == call:
            raise KeyboardInterrupt

    return answering(interrupt)


def leave_halfway(folder: Path) -> None:
    """An evaluation of which one window is done."""
    with pytest.raises(KeyboardInterrupt):
        report(folder, interrupting(5))
    assert [path.name for path in (folder / ".partial/windows").iterdir()] == ["00000.json"]


@pytest.mark.parametrize("call", [0, 3, 4, 9, 11, NUM_CALLS - 1])
def test_interrupted_anywhere(call: int, uninterrupted: Path, tmp_path: Path) -> None:
    """The second run has the missing batches alone, composed alike."""
    first, second, whole = interrupting(call), answering(), answering()
    with pytest.raises(KeyboardInterrupt):
        report(tmp_path / "out", first)
    assert (tmp_path / "out").exists() == (call >= 4)  # the first window is four batches
    report(tmp_path / "out", second, resume=True)
    report(tmp_path / "whole", whole)
    assert comparable(tmp_path / "out") == comparable(uninterrupted)
    assert second.batches == whole.batches[-len(second.batches) :]
    assert len(second.batches) <= NUM_CALLS - call + 5  # of half a window: four batches, two of them one by one


def test_interrupted_twice(uninterrupted: Path, tmp_path: Path) -> None:
    leave_halfway(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        report(tmp_path, interrupting(7), resume=True)
    assert len(list((tmp_path / ".partial/windows").iterdir())) == 2
    report(tmp_path, last := answering(), resume=True)
    assert comparable(tmp_path) == comparable(uninterrupted) and len(last.batches) < NUM_CALLS - 8


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"batch_size": 4}, "--batch_size was 2, is 4; set"),
        ({"model_files": "b"}, "the model's files was '', is 'b'; set"),
        ({"samples_per_task": 3, "seed": 1}, "--samples_per_task was 0, is 3; --seed was 0, is 1; the choice"),
    ],
)
def test_other_settings_are_refused(changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    leave_halfway(tmp_path)
    with pytest.raises(SatlisaError, match=f"--resume: .*{said}"):
        report(tmp_path, answering(), replace(SETTINGS, **changed), resume=True)
    assert (tmp_path / ".partial/windows/00000.json").exists()


def test_other_rows_are_refused(tmp_path: Path) -> None:
    leave_halfway(tmp_path)
    fewer = made_up_rows().select(range(NUM_ROWS - 1))
    with pytest.raises(SatlisaError, match="the choice of rows was"), PartialReport(tmp_path, resume=True) as partial:
        evaluate(MODEL, fewer, SETTINGS, partial, answering())
    changed = made_up_rows().map(lambda row, index: {**row, "metadata": "{}"} if index == 3 else row, with_indices=True)
    with pytest.raises(SatlisaError, match="the rows was"), PartialReport(tmp_path, resume=True) as partial:
        evaluate(MODEL, changed, SETTINGS, partial, answering())
