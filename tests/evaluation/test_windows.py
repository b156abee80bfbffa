"""Windows of an evaluation: which images live at a time, and rows that fail when they are read again."""

import itertools
import weakref
from pathlib import Path
from typing import Any

import pytest

from satlisa.errors import SatlisaError
from satlisa.evaluation import windows
from satlisa.evaluation.evaluate import evaluate
from satlisa.evaluation.partial_report import PartialReport
from satlisa.evaluation.report import write_report
from satlisa.evaluation.windows import EvalSettings
from tests.helpers.made_up_answers import (
    BUILDINGS,
    FLOOD,
    HEIGHT,
    INSTANCES,
    MODEL,
    REPLIES,
    SCENE,
    WIDTH,
    answering,
    make_rows,
)


@pytest.mark.parametrize("kept", [0, 3, 10**9])
def test_large_images_are_read_again_for_their_batch(
    kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more images live at a time than are kept, in the batch, and read ahead; the report is the same."""
    alive: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
    numbers, most, original = itertools.count(), [0], windows.read_sample

    def read_sample(*arguments: Any, **options: Any) -> Any:
        sample = original(*arguments, **options)
        alive[next(numbers)] = sample.image
        most[0] = max(most[0], len(alive))
        return sample

    questions = [SCENE, BUILDINGS, FLOOD, INSTANCES] * 6
    settings = EvalSettings(samples_per_task=0, batch_size=2)  # windows of 8
    expected = evaluate(MODEL, make_rows(*questions), settings, answer_fn=answering(REPLIES))["samples"]
    monkeypatch.setattr(windows, "read_sample", read_sample)
    monkeypatch.setattr(windows, "_PIXELS_AHEAD", kept * WIDTH * HEIGHT)
    with PartialReport(tmp_path) as report:
        found = evaluate(MODEL, make_rows(*questions), settings, report, answering(REPLIES))
        write_report(found, report.folder)
    assert [{**entry, "images": {}} for entry in found["samples"]] == expected
    window, batch, being_read = min(kept, 8), 2, 2
    assert batch <= most[0] <= 2 * window + batch + being_read


def test_a_row_that_is_gone_when_it_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    original = windows.read_sample

    def read_sample(cells: Any, index: int, **options: Any) -> Any:
        reads.append(index)
        if reads.count(1) == 2 and index == 1:
            raise OSError("the disk is gone")
        return original(cells, index, **options)

    monkeypatch.setattr(windows, "read_sample", read_sample)
    monkeypatch.setattr(windows, "_PIXELS_AHEAD", 0)
    samples = evaluate(MODEL, make_rows(SCENE, SCENE, SCENE), EvalSettings(), answer_fn=answering(REPLIES))["samples"]
    assert [entry["error"] for entry in samples] == [None, "OSError: the disk is gone", None]


@pytest.mark.parametrize(
    "wrong", [{"samples_per_task": -1}, {"batch_size": 0}, {"max_new_tokens": 0}, {"report_samples": -2}]
)
def test_settings_out_of_range(wrong: dict[str, int]) -> None:
    with pytest.raises(SatlisaError, match=f"--{next(iter(wrong))}: expected at least"):
        EvalSettings(**wrong)  # type: ignore[arg-type]
