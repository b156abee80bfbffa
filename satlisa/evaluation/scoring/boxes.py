"""Scores of boxes that an answer lists in its text."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco

from satlisa.evaluation.metrics import is_yes_no
from satlisa.evaluation.scoring.bootstrap import Statistic, mean_of, ratio_of
from satlisa.evaluation.scoring.box_text import Box, BoxList, as_thousandths, read_record, read_text
from satlisa.evaluation.scoring.counts import states_counts
from satlisa.evaluation.scoring.matching import found_statistics, match

_FAR = 1e6  # thousandths; coordinates beyond are far outside any image, but their areas stay finite
_ASKS = re.compile(r"\b(?:bounding[\s-]*)?box(?:es)?\b|\bbbox(?:es|_2d)?\b", re.IGNORECASE)
_SEEKS = re.compile(
    r"\b(?:where|locat(?:e|es|ion|ions|ing)|locali[sz]e|find|detect|point|ground|positions?|coordinates?|mark|show me"
    r"|objects?)\b",
    re.IGNORECASE,
)
_SEEKING_TASK = re.compile(r"detect|ground|locali")
_HERE = re.compile(r"\W*here\b", re.IGNORECASE)  # "Here they are": the places are in the metadata
_NONE = re.compile(
    r"\W*(?:none|nothing|no(?!\s*(?:[^\w\s]|\Z))|zero|n/a|empty|there (?:is|are|was|were) (?:no|none|nothing|not any)"
    r"|i (?:see|saw|find|found|detect|detected) (?:no|none|nothing))\b",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r" #?\d{1,2}$")

DEFINITIONS = {
    "box_precision": "share of all boxes given that match an expected box at IoU >= 0.5 with the same label, one box "
    "per object, in the order of the answer (pycocotools' matcher); labels are compared in lower case and singular, "
    "and a box whose label is missing or cannot be told (no noun phrase directly before it, no ': label' or "
    "'(label)' after it) by place alone; 0 where no box is given",
    "box_recall": "share of all expected boxes that a box matches, as in box_precision",
    "box_f1": "harmonic mean of box_precision and box_recall",
    "box_accuracy": "of the questions with one expected box, the share whose first box matches it (accuracy at IoU 0.5 "
    "of visual grounding, Mao et al. 2016, arXiv:1511.02283)",
    "boxes_labelled": "of all boxes given where every expected box has a label, the share with a label; the others are "
    "compared by place alone",
    "boxes_unparsed": "share of the answers to questions about boxes that hold something which is no box and no "
    "statement that there is none; it counts as no box",
    "boxes_expected_unparsed": "share of the questions about boxes whose expected boxes cannot be read; they are left "
    "out of the other scores",
}


def asks_for_boxes(prompt: str, expected: str, metadata: Any = None, task: str = "") -> bool:
    """Whether a question is about boxes, see `measure`."""
    return _expected_boxes(prompt, expected, metadata, task) is not None


def measure(prompt: str, expected: str, output: str, metadata: Any = None, task: str = "") -> dict[str, Any] | None:
    """What is kept of a sample; None for a question that is not about boxes.

    A question is about boxes if
    - its expected answer lists boxes: within 0..1000 with labels, or without labels where the prompt or the task asks
      for objects or places; any where the prompt asks for boxes;
    - the prompt asks for boxes, and the expected answer says that there are none, or holds boxes that cannot be read;
    - the metadata has boxes, and the prompt asks for boxes, or the task detects, grounds or localises, or the prompt
      seeks and the answer is "Here ..."; but not where the expected answer is a count or yes/no.

    Args:
        prompt, expected, output: the question, its answer and the model's.
        metadata: parsed JSON; its boxes are expected where `expected` neither holds boxes that can be read nor says
            that there are none.
        task: the sample's task.

    Returns:
        expected, given, matched: numbers of boxes, and of pairs at IoU >= 0.5 with one label.
        first_matches: whether the first box matches the only expected one; None if not one is expected.
        unlabelled: number of boxes given without label; None where an expected box has none.
        unparsed, expected_unparsed: what is no box in the answer, and in what is expected.
    """
    wanted = _expected_boxes(prompt, expected, metadata, task)
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
        "unlabelled": sum(box.label is None for box in given.boxes) if _all_labelled(wanted) else None,
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
        "boxes_labelled": _labelled_share(kept),
        "boxes_unparsed": mean_of([one["unparsed"] > 0 if one else None for one in asked]),
        "boxes_expected_unparsed": mean_of([one["expected_unparsed"] > 0 if one else None for one in asked]),
    }


def _labelled_share(kept: Sequence[Mapping[str, Any] | None]) -> Statistic:
    asked = [one if one and one.get("unlabelled") is not None else None for one in kept]
    labelled = [one["given"] - one["unlabelled"] if one else 0 for one in asked]
    return ratio_of(labelled, [one["given"] if one else 0 for one in asked])


def _expected_boxes(prompt: str, expected: str, metadata: Any, task: str) -> BoxList | None:
    written = read_text(expected)
    is_count = states_counts(prompt, expected)
    is_asked = bool(_ASKS.search(prompt)) and not (is_count and states_counts(prompt, "3"))  # not "How many boxes?"
    seeks = bool(_SEEKS.search(prompt)) or bool(_SEEKING_TASK.search(task.casefold()))
    if written.boxes and not is_asked and not _are_places(written.boxes, seeks):
        written = BoxList()
    if written.boxes and not written.unparsed:
        return written
    if is_asked and not written.unparsed and _says_none(expected):
        return BoxList()
    is_hidden = bool(_SEEKING_TASK.search(task.casefold())) or (seeks and _HERE.match(expected) is not None)
    is_hidden = is_hidden and not (is_count or is_yes_no(prompt, expected) or _says_none(expected))
    stored = read_record(metadata) if is_asked or is_hidden or written.boxes else BoxList()
    if stored.boxes:
        return stored
    return written if written.boxes or (is_asked and written.unparsed) else None


def _are_places(boxes: Sequence[Box], seeks: bool) -> bool:
    """Whether numbers in an answer are boxes where the prompt does not say so: "[2018, 2019, 2020, 2021]" is none."""
    is_within = all(0 <= number <= 1000 for box in boxes for number in box.corners)
    return is_within and (seeks or all(box.label is not None for box in boxes))


def _says_none(text: str) -> bool:
    return _NONE.match(text) is not None or re.sub(r"[\s`\[\]{}]+", "", text).casefold() in ("", "json")


def _all_labelled(found: BoxList) -> bool:
    return all(box.label is not None for box in found.boxes)


def _is_same(given: str | None, expected: str | None) -> bool:
    """Whether labels agree; a missing one takes any, and "building 2" is a building where "building" is expected."""
    return given is None or expected is None or expected in (given, _NUMBERED.sub("", given))


def _ious(given: Sequence[Box], expected: Sequence[Box]) -> np.ndarray:
    """IoUs (P, T) by pycocotools, 0 where labels differ.

    Equal boxes have IoU 1 even without area: a small object may be rounded to none.
    """
    if not given or not expected:
        return np.zeros((len(given), len(expected)))
    first, second = (np.clip([box.corners for box in boxes], -_FAR, _FAR) for boxes in (given, expected))
    sizes = (np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1) for corners in (first, second))
    ious = np.asarray(coco.iou(*sizes, [0] * len(second)))
    ious[(first[:, None] == second).all(axis=2)] = 1.0
    fits = [[_is_same(box.label, truth.label) for truth in expected] for box in given]
    return np.where(fits, ious, 0.0)
