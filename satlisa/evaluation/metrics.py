"""Scores of masks and answers, and their summary per task: sums and counts are added, never means of means.

Two conventions for masks: gIoU is the mean over samples of each sample's IoU (a small mask counts as much as
a large one), cIoU is the sum of intersections over the sum of unions (large masks dominate). Both as in LISA,
arXiv:2308.00692, §4.1, with IoU 1.0 where prediction and truth are both empty.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

_YES_NO = ("yes", "no")
# "Is there flooding visible?": a question that yes or no answers. "What objects are visible?" is none.
_POLAR_QUESTION = re.compile(
    r"(?:^|[.?!:,;]\s*)(?:is|are|was|were|do|does|did|can|could|has|have|had|will|would|should)\b[^.?!]*\?*\s*$"
)
_OPENS_WITH_YES_NO = re.compile(r"\W*(?:yes|no)\s*(?:[.,;:!—–-]|$)")


def intersection_union(prediction: np.ndarray, truth: np.ndarray) -> tuple[int, int]:
    """Pixels in both masks, and pixels in either. Both (H, W) bool, of the same size.

    Raises:
        ValueError: sizes or types that differ; broadcasting would give a wrong number silently.
    """
    if prediction.shape != truth.shape or prediction.dtype != bool or truth.dtype != bool:
        found = f"{prediction.dtype} {prediction.shape} and {truth.dtype} {truth.shape}"
        raise ValueError(f"expected two bool masks of one size, found {found}")
    return int(np.count_nonzero(prediction & truth)), int(np.count_nonzero(prediction | truth))


def iou(intersection: int, union: int) -> float:
    """Intersection over union, 1.0 where prediction and truth are both empty."""
    return intersection / union if union else 1.0


def normalise(text: str) -> str:
    """Words alone: case, punctuation, `_` and repeated spaces do not count; an apostrophe joins its word."""
    text = re.sub(r"['’]", "", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(re.sub(r"[\W_]+", " ", text).split())


def is_yes_no(prompt: str, expected: str) -> bool:
    """Whether the expected answer is a yes or a no: "Yes, 2 flooded buildings visible", "No".

    "No buildings are visible" is one only where the question asks for it ("Are there buildings?"), since it
    also answers "What objects are visible?".
    """
    if normalise(expected).split(" ")[0] not in _YES_NO:
        return False
    asked = _POLAR_QUESTION.search(prompt.casefold()) is not None
    return asked or _OPENS_WITH_YES_NO.match(expected.casefold()) is not None


def is_correct(task: str, prompt: str, expected: str, output: str) -> bool | None:
    """Whether a text answer is right, for the answers that can be judged by their words; None for all others.

    A yes/no answer by its first word, in whatever task it appears; a scene class (a task whose name says
    classification) by all of its words. Captions and open questions are not judged here, see `exact_match`.
    """
    if is_yes_no(prompt, expected):
        return normalise(expected).split(" ")[0] == normalise(output).split(" ")[0]
    if "classif" in task.casefold():
        return exact_match(expected, output)
    return None


def exact_match(expected: str, output: str) -> bool:
    """Whether two answers hold the same words in the same order."""
    return normalise(expected) == normalise(output)


def summarise(samples: Iterable[Mapping[str, Any]]) -> dict[str, float | int | None]:
    """One task's scores from its sample entries (as in `results.json`); None where there is none to score.

    Errors are counted and leave every other number untouched: a sample that could not be read or answered has
    no score, while an answer without the `<SEG>` it should have is an answer, and its IoU is 0.

    Returns:
        samples, errors: how many were tried, and how many of them have no answer.
        masks: how many were scored against a mask.
        mean_iou, giou: the mean of the samples' IoU; one number under the report's name and the literature's.
        ciou: sum of intersections / sum of unions; 1.0 where every truth and every prediction is empty.
        judged, accuracy: yes/no and class answers, and the share that is right.
        exact_match: share of all text answers with exactly the expected words.
        seg_rate: share of the answers that hold `<SEG>`.
        count_error: mean over mask samples of |number of `<SEG>` - number expected|.
    """
    entries = list(samples)
    answered = [entry for entry in entries if entry["error"] is None]
    masks = [entry for entry in answered if entry["iou"] is not None]
    judged = [entry["correct"] for entry in answered if entry["correct"] is not None]
    texts = [entry["exact_match"] for entry in answered if entry["exact_match"] is not None]
    giou = _mean([entry["iou"] for entry in masks])
    intersection, union = (sum(entry[key] for entry in masks) for key in ("intersection", "union"))
    return {
        "samples": len(entries),
        "errors": len(entries) - len(answered),
        "masks": len(masks),
        "mean_iou": giou,
        "giou": giou,
        "ciou": iou(intersection, union) if masks else None,
        "judged": len(judged),
        "accuracy": _mean(judged),
        "exact_match": _mean(texts),
        "seg_rate": _mean([entry["segs"] > 0 for entry in answered]),
        "count_error": _mean([abs(entry["segs"] - entry["expected_segs"]) for entry in masks]),
    }


def _mean(values: Sequence[float]) -> float | None:
    """Their mean, None of none."""
    return float(sum(values)) / len(values) if values else None
