"""Scores of masks and answers, and their summary per task.

gIoU is the mean of the samples' IoU (small and large masks count alike); cIoU is the sum of intersections over the sum
of unions (large masks dominate). Both as in LISA, arXiv:2308.00692, §4.1, with IoU 1.0 where prediction and truth are
both empty.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

_YES_NO = ("yes", "no")
# "Is there flooding visible?" asks for yes or no; "What objects are visible?" does not.
_POLAR_QUESTION = re.compile(
    r"(?:^|[.?!:,;]\s*)(?:is|are|was|were|do|does|did|can|could|has|have|had|will|would|should)\b[^.?!]*\?*\s*$"
)
_OPENS_WITH_YES_NO = re.compile(r"\W*(?:yes|no)\s*(?:[.,;:!—–-]|$)")


def intersection_union(prediction: np.ndarray, truth: np.ndarray) -> tuple[int, int]:
    """Number of pixels in both masks, and in either. Both masks are (H, W) bool.

    Raises:
        ValueError: shapes differ or a mask is not bool; broadcasting would silently give a wrong number.
    """
    if prediction.shape != truth.shape or prediction.dtype != bool or truth.dtype != bool:
        found = f"{prediction.dtype} {prediction.shape} and {truth.dtype} {truth.shape}"
        raise ValueError(f"expected two bool masks of one size, found {found}")
    return int(np.count_nonzero(prediction & truth)), int(np.count_nonzero(prediction | truth))


def iou(intersection: int, union: int) -> float:
    """Intersection over union, 1.0 where prediction and truth are both empty."""
    return intersection / union if union else 1.0


def normalise(text: str) -> str:
    """Lower-case words without punctuation, `_` or repeated spaces; an apostrophe joins its word."""
    text = re.sub(r"['’]", "", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(re.sub(r"[\W_]+", " ", text).split())


def is_yes_no(prompt: str, expected: str) -> bool:
    """Whether the expected answer is yes or no: "Yes, 2 flooded buildings visible", "No".

    "No buildings are visible" counts only after a yes/no question ("Are there buildings?"): it also answers "What
    objects are visible?".
    """
    if normalise(expected).split(" ")[0] not in _YES_NO:
        return False
    asked = _POLAR_QUESTION.search(prompt.casefold()) is not None
    return asked or _OPENS_WITH_YES_NO.match(expected.casefold()) is not None


def is_correct(task: str, prompt: str, expected: str, output: str) -> bool | None:
    """Whether a text answer is right; None where words alone cannot tell.

    Yes/no answers are judged by their first word, in any task; scene classes (tasks named classification) by all words.
    Captions and open questions are not judged, see `exact_match`.
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
    """The scores of one task from its sample entries (as in `results.json`); None where no sample has such a score.

    A sample that could not be read or answered is an error and has no other score. An answer that lacks its `<SEG>` is
    no error: its IoU is 0.

    Returns:
        samples, errors: number of samples, and of those without an answer.
        masks: number of samples scored against a mask.
        mean_iou, giou: mean of the samples' IoU; the same number under two names.
        ciou: sum of intersections / sum of unions; 1.0 where every truth and every prediction is empty.
        judged, accuracy: number of yes/no and class answers, and the share that is right.
        exact_match: share of all text answers with exactly the expected words.
        seg_rate: share of the answers that contain `<SEG>`.
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
    """The mean; None without values."""
    return float(sum(values)) / len(values) if values else None
