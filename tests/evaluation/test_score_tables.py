"""The tables of scores in a report."""

from typing import Any

from satlisa.evaluation.report import render
from satlisa.evaluation.score_tables import score_lines
from satlisa.evaluation.scoring.summary import scores_of


def lines(tasks: dict[str, Any]) -> list[str]:
    return score_lines(tasks, str.upper)


def test_only_what_was_scored_has_a_table_with_its_interval_and_its_definition() -> None:
    found = lines({"a": {"giou": 0.5, "ciou": None, "intervals": {"giou": [0.25, 0.75]}}, "b": {"intervals": {}}})
    assert "### Masks" in found and "### Objects" not in found
    assert "| Task | gIoU |" in found and "| A | 0.500 (0.250 to 0.750) |" in found
    assert [line for line in found if line.startswith("- **giou**: mean IoU of the samples")]
    assert not any("ciou" in line or line.startswith("| B") for line in found)


def test_sources_have_a_table_of_their_own() -> None:
    sources = {"x": {"accuracy": 1.0}, "": {"accuracy": 0.0}}
    found = lines({"a": {"accuracy": 0.5, "intervals": {"accuracy": None}, "sources": sources}})
    assert "| A | 0.500 |" in found and "| A · X | 1.000 |" in found and "| A · (NONE) | 0.000 |" in found


def test_results_of_before_have_no_such_tables() -> None:
    assert lines({"a": {"giou": 0.5}}) == []


def test_the_report_says_how_it_was_asked() -> None:
    entry = {"task": "t", "source": "", "prompt": "p", "expected": "a", "output": "a", "iou": None, "segs": 0}
    entry |= {"intersection": None, "union": None, "correct": True, "exact_match": True, "error": None}
    entry |= {"expected_segs": 0, "images": {}, "number": 0, "index": 0}
    text = render({"settings": {}, "tasks": {"t": scores_of([entry])}, "samples": [entry]})
    assert "answers freely" in text and "without `<SEG>` scores 0" in text and "at the image's own size" in text
    assert "Best constant" in text and "- **constant_accuracy**: accuracy of the best constant answer" in text
