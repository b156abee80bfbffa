"""Scores of boxes that an answer lists in its text."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco

from satlisa.evaluation.scoring.bootstrap import Statistic, mean_of
from satlisa.evaluation.scoring.box_text import Box, BoxList, as_thousandths, read_record, read_text
from satlisa.evaluation.scoring.matching import found_statistics, match

_FAR = 1e6  # thousandths; coordinates beyond are far outside any image, but their areas stay finite
_ASKS = re.compile(r"\b(?:bounding[\s-]*)?box(?:es)?\b|\bbbox(?:es|_2d)?\b", re.IGNORECASE)
_NONE = re.compile(
    r"\W*(?:none|nothing|no(?!\s*(?:[^\w\s]|\Z))|zero|n/a|empty|there (?:is|are|was|were) (?:no|none|nothing|not any)"
    r"|i (?:see|saw|find|found|detect|detected) (?:no|none|nothing))\b|[\s`\[\]{}]*(?:json)?[\s`\[\]{}]*\Z",
    re.IGNORECASE,
)

DEFINITIONS = {
    "box_precision": "share of all boxes given that match an expected box at IoU >= 0.5 with the same label, upper or "
    "lower case, one box per object, in the order of the answer (pycocotools' matcher); 0 where no box is given",
    "box_recall": "share of all expected boxes that a box matches, as in box_precision",
    "box_f1": "harmonic mean of box_precision and box_recall",
    "box_accuracy": "of the questions with one expected box, the share whose first box matches it (accuracy at IoU 0.5 "
    "of visual grounding, Mao et al. 2016, arXiv:1511.02283)",
    "boxes_unparsed": "share of the answers to questions about boxes that hold something which is no box and no "
    "statement that there is none; it counts as no box",
    "boxes_expected_unparsed": "share of the questions about boxes whose expected boxes cannot be read; they are left "
    "out of the other scores",
}


def asks_for_boxes(prompt: str, expected: str) -> bool:
    """Whether a question is about boxes: its expected answer lists some, or the prompt asks for boxes and the expected
    answer says that there are none or holds boxes that cannot be read."""
    found = read_text(expected)
    return bool(found.boxes) or (bool(_ASKS.search(prompt)) and (found.unparsed > 0 or _says_none(expected)))


def measure(prompt: str, expected: str, output: str, metadata: Any = None) -> dict[str, Any] | None:
    """What is kept of a sample; None for a question that is not about boxes.

    Args:
        prompt, expected, output: the question, its answer and the model's.
        metadata: parsed JSON. Its boxes are expected where the prompt asks for boxes and `expected` neither holds boxes
            that can be read nor says that there are none.

    Returns:
        expected, given, matched: numbers of boxes, and of pairs at IoU >= 0.5 with one label.
        first_matches: whether the first box matches the only expected one; None if not one is expected.
        unparsed, expected_unparsed: what is no box in the answer, and in what is expected.
    """
    wanted = _expected_boxes(prompt, expected, metadata)
    if wanted is None:
        return None
    given = read_text(output)
    is_other = not given.boxes and not given.unparsed and not _says_none(output)
    ious = _ious(as_thousandths(given.boxes), as_thousandths(wanted.boxes))
    (matches,) = match(ious, -np.arange(len(ious), dtype=np.float64), (0.5,))
    is_single = len(wanted.boxes) == 1
    return {
        "expected": len(wanted.boxes),
        "given": len(given.boxes),
        "matched": int((matches >= 0).sum()),
        "first_matches": bool(len(ious) and ious[0, 0] >= 0.5) if is_single else None,
        "unparsed": given.unparsed + is_other,
        "expected_unparsed": wanted.unparsed,
    }


def statistics(entries: Sequence[Mapping[str, Any]]) -> dict[str, Statistic]:
    """Scores by the keys of `DEFINITIONS`, from `boxes` of sample entries; empty where no sample has it."""
    asked = [None if entry["error"] is not None else entry.get("boxes") for entry in entries]
    if not any(asked):
        return {}
    kept = [one if one and not one["expected_unparsed"] else None for one in asked]
    numbers = ([one[key] if one else 0 for one in kept] for key in ("matched", "given", "expected"))
    return {
        **found_statistics("box", *numbers),
        "box_accuracy": mean_of([one["first_matches"] if one else None for one in kept]),
        "boxes_unparsed": mean_of([one["unparsed"] > 0 if one else None for one in asked]),
        "boxes_expected_unparsed": mean_of([one["expected_unparsed"] > 0 if one else None for one in asked]),
    }


def _expected_boxes(prompt: str, expected: str, metadata: Any) -> BoxList | None:
    written = read_text(expected)
    if written.boxes and not written.unparsed:
        return written
    is_asked = bool(_ASKS.search(prompt))
    if is_asked and not written.unparsed and _says_none(expected):
        return BoxList()
    stored = read_record(metadata) if is_asked or written.boxes else BoxList()
    if stored.boxes:
        return stored
    return written if written.boxes or (is_asked and written.unparsed) else None


def _says_none(text: str) -> bool:
    return _NONE.match(text) is not None


def _ious(given: Sequence[Box], expected: Sequence[Box]) -> np.ndarray:
    """IoUs (P, T) by pycocotools, 0 where labels differ; an expected box without label takes any.

    Equal boxes have IoU 1 even without area: a small object may be rounded to none.
    """
    if not given or not expected:
        return np.zeros((len(given), len(expected)))
    first, second = (np.clip([box.corners for box in boxes], -_FAR, _FAR) for boxes in (given, expected))
    sizes = (np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1) for corners in (first, second))
    ious = np.asarray(coco.iou(*sizes, [0] * len(second)))
    ious[(first[:, None] == second).all(axis=2)] = 1.0
    fits = [[truth.label in (None, box.label) for truth in expected] for box in given]
    return np.where(fits, ious, 0.0)
