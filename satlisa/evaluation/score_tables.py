"""Tables of scores for REPORT.md: each kind of score, by task and by source, with intervals and definitions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from satlisa.evaluation.scoring.summary import DEFINITIONS
from satlisa.evaluation.tables import markdown_table

Scores = Mapping[str, Any]

# Headings, and under each the scores: key → column.
_TABLES: dict[str, dict[str, str]] = {
    "Masks": {
        "giou": "gIoU",
        "ciou": "cIoU",
        **{f"precision_{percent}": f"P@0.{percent // 10}" for percent in (50, 60, 70, 80, 90)},
        "n_acc": "N-acc",
        "t_acc": "T-acc",
    },
    "Objects": {
        "ap": "AP",
        "ap50": "AP50",
        "ap75": "AP75",
        "instance_precision": "Precision",
        "instance_recall": "Recall",
        "instance_f1": "F1",
        "matched_iou": "Matched IoU",
        "pq": "PQ",
        "instance_count_exact": "Count exact",
        "instance_count_mae": "Count error",
        "overlapping_pairs": "Overlapping pairs",
    },
    "Boxes in text": {
        "box_precision": "Precision",
        "box_recall": "Recall",
        "box_f1": "F1",
        "box_accuracy": "Accuracy",
        "boxes_labelled": "Labelled",
        "boxes_unparsed": "Unparsed",
        "boxes_expected_unparsed": "Expected unparsed",
    },
    "Counts in text": {
        "object_count_exact": "All exact",
        "label_count_exact": "Label exact",
        "label_count_mae": "Error per label",
        "counts_unparsed": "Unparsed",
    },
    "Captions": {
        **{f"bleu_{n}": f"BLEU-{n}" for n in (1, 2, 3, 4)},
        "rouge_l": "ROUGE-L",
        "cider_d": "CIDEr-D",
    },
    "Classes and questions": {
        "accuracy": "Accuracy",
        "constant_accuracy": "Best constant",
        "macro_accuracy": "Macro accuracy",
        "exact_match": "Exact match",
        "constant_exact_match": "Best constant",
    },
}

NOTES = (
    "The model answers freely: it is given the image and the prompt alone, and its own words decide whether a mask "
    "comes. An answer without `<SEG>` scores 0 where objects are expected. Many published scripts give the model the "
    "expected answer up to `<SEG>`, or skip such samples; their numbers are higher for the same model.",
    "Masks are compared at the image's own size, with every object of the row.",
    "Brackets hold 95 % bootstrap intervals over samples (1,000 draws, percentiles). They do not tell how another "
    "training run or another dataset would score.",
)


def score_lines(tasks: Mapping[str, Scores], escape: Callable[[str], str]) -> list[str]:
    """The lines of all tables of scores, of those by source, and of the definitions; none without intervals.

    Args:
        tasks: scores by task (`summary.scores_of`).
        escape: makes text harmless in Markdown.
    """
    if not any("intervals" in scores for scores in tasks.values()):
        return []
    lines, defined = [], set()
    for heading, columns in _TABLES.items():
        rows = _rows(tasks, columns)
        if not rows:
            continue
        kept = _kept(rows, columns)
        defined |= set(kept)
        lines += ["", f"### {heading}", "", *_table(rows, kept, columns, "Task", escape)]
        parts = {
            f"{task} · {source or '(none)'}": scores
            for task, of_task in tasks.items()
            for source, scores in of_task.get("sources", {}).items()
            if len(of_task["sources"]) > 1
        }
        if by_source := _rows(parts, {key: columns[key] for key in kept}):
            lines += ["", "By source:", "", *_table(by_source, kept, columns, "Task · source", escape)]
    notes = [f"- {note}" for note in NOTES]
    definitions = [f"- **{key}**: {text}." for key, text in DEFINITIONS.items() if key in defined]
    return ["", "## Scores", *lines, "", "## How to read the scores", "", *notes, *definitions]


def _rows(tasks: Mapping[str, Scores], columns: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Cells by row and key; rows and keys without any value are left out."""
    found = {}
    for name, scores in tasks.items():
        cells = {key: _cell(scores, key) for key in columns if scores.get(key) is not None}
        if cells:
            found[name] = cells
    return found


def _kept(rows: Mapping[str, Mapping[str, str]], columns: Mapping[str, str]) -> list[str]:
    return [key for key in columns if any(key in cells for cells in rows.values())]


def _table(
    rows: Mapping[str, Mapping[str, str]],
    kept: Sequence[str],
    columns: Mapping[str, str],
    first: str,
    escape: Callable[[str], str],
) -> list[str]:
    body = [[escape(name), *(cells.get(key, "–") for key in kept)] for name, cells in rows.items()]
    return markdown_table([[first, *(columns[key] for key in kept)], *body])


def _cell(scores: Scores, key: str) -> str:
    interval = scores.get("intervals", {}).get(key)
    bounds = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    return f"{scores[key]:.3f}{bounds}"
