"""Scores of masks object by object: average precision, F1, panoptic quality and counts.

Of a sample only numbers are kept: scores, areas, and the pixels that a predicted and a true mask share. These are whole
numbers, from which the IoUs follow exactly; no mask is needed when samples are summarised.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco
from pycocotools.cocoeval import Params

from satlisa.evaluation.scoring.average_precision import average_precision
from satlisa.evaluation.scoring.bootstrap import Statistic, mean_of, ratio_of
from satlisa.evaluation.scoring.matching import found_statistics, match
from satlisa.geometry.raster import run_lengths
from satlisa.geometry.regions import Region

Rle = Mapping[str, Any]
"""COCO's compressed run lengths, {"size": [H, W], "counts": bytes}."""

_THRESHOLDS = tuple(float(value) for value in Params("segm").iouThrs)  # 0.5, 0.55, …, 0.95
_ABOVE_HALF = float(np.nextafter(0.5, 1.0))  # panoptic quality matches IoU > 0.5, COCO IoU >= 0.5

DEFINITIONS = {
    "ap": "COCO's average precision over IoU 0.50:0.05:0.95, one category, any number of masks per answer; score: "
    "SAM's predicted IoU (Lin et al. 2014, arXiv:1405.0312; matched by pycocotools)",
    "ap50": "as ap, at IoU 0.5",
    "ap75": "as ap, at IoU 0.75",
    "instance_precision": "share of all predicted masks that match an object at IoU >= 0.5, one mask per object "
    "(COCO's matcher); 0 where no mask comes",
    "instance_recall": "share of all objects that a mask matches at IoU >= 0.5; objects smaller than a pixel are "
    "none, and those beyond the model's max_instances are missed",
    "instance_f1": "harmonic mean of instance_precision and instance_recall",
    "matched_iou": "mean IoU of the pairs that match at IoU >= 0.5",
    "pq": "panoptic quality, one category: sum of the IoUs of the pairs that match at IoU > 0.5 / (pairs + unmatched "
    "masks / 2 + unmatched objects / 2) (Kirillov et al. 2019, arXiv:1801.00868); masks may overlap here",
    "instance_count_exact": "share of samples with as many masks as objects",
    "instance_count_mae": "mean of |number of masks - number of objects|",
    "overlapping_pairs": "share of the pairs of masks within an answer whose IoU is over 0.5",
}


def encode_mask(mask: np.ndarray) -> Rle:
    """Encode a mask (H, W) bool."""
    packed: Rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return packed


def encode_masks(masks: Iterable[np.ndarray]) -> list[Rle]:
    """Encode (N, H, W) bool masks, one at a time."""
    return [encode_mask(mask) for mask in masks]


def encode_regions(regions: Sequence[Region], height: int, width: int) -> list[Rle]:
    """Encode regions as `rasterize` draws them; regions that cover no pixel are left out, nobody could find them."""
    drawn = [run_lengths(region, height, width) for region in regions]
    return [
        coco.frPyObjects({"counts": runs, "size": [height, width]}, height, width) for runs in drawn if len(runs) > 1
    ]


def measure(predictions: Sequence[Rle], truths: Sequence[Rle], scores: Iterable[float]) -> dict[str, Any]:
    """What is kept of a sample.

    Args:
        predictions, truths: masks of one size. An answer without masks has no predictions.
        scores: one per prediction; those that are not finite rank last.

    Returns:
        scores: None where not finite.
        areas, truth_areas: pixels of each mask.
        overlaps: [prediction, truth, shared pixels] of each pair that shares some.
        pairs, overlapping_pairs: pairs of predictions, and those with an IoU over 0.5.

    Raises:
        ValueError: numbers of scores and predictions differ, or sizes do.
    """
    numbers = [float(score) for score in scores]
    if len(numbers) != len(predictions):
        raise ValueError(f"expected a score per mask, found {len(numbers)} scores of {len(predictions)} masks")
    if len(sizes := {tuple(mask["size"]) for mask in (*predictions, *truths)}) > 1:
        raise ValueError(f"expected masks of one size, found {', '.join(map(str, sorted(sizes)))}")
    areas, truth_areas = (np.array([coco.area(mask) for mask in masks], float) for masks in (predictions, truths))
    shared = _shared(_ious(predictions, truths), areas, truth_areas)
    close = np.triu(_ious(predictions, predictions) > 0.5, 1)
    return {
        "scores": [number if np.isfinite(number) else None for number in numbers],
        "areas": areas.astype(int).tolist(),
        "truth_areas": truth_areas.astype(int).tolist(),
        "overlaps": [[int(p), int(t), int(shared[p, t])] for p, t in zip(*np.nonzero(shared), strict=True)],
        "pairs": len(areas) * (len(areas) - 1) // 2,
        "overlapping_pairs": int(close.sum()),
    }


def matched_pairs(measured: Mapping[str, Any]) -> list[tuple[int, int]]:
    """The (prediction, truth) that match at IoU >= 0.5, as in instance_f1."""
    (matches,) = match(*_table(measured), (0.5,))
    return [(place, int(truth)) for place, truth in enumerate(matches) if truth >= 0]


def statistics(entries: Sequence[Mapping[str, Any]]) -> dict[str, Statistic]:
    """Scores by the keys of `DEFINITIONS`, from `instances` of sample entries; empty where no sample has it."""
    samples = [_match(entry) for entry in entries]
    if not any(samples):
        return {}
    seen = [sample or _NOTHING for sample in samples]
    hits = np.concatenate([sample.hits for sample in seen], axis=1)
    scores = np.concatenate([sample.scores for sample in seen])
    owners = np.repeat(np.arange(len(seen)), [len(sample.scores) for sample in seen])
    expected = np.array([sample.expected for sample in seen])
    given = np.array([len(sample.scores) for sample in seen])
    matched = np.array([sample.hits[0].sum() for sample in seen])
    above, quality = (np.array([getattr(sample, name) for sample in seen]) for name in ("above", "quality"))
    missed = [abs(len(sample.scores) - sample.expected) if sample else None for sample in samples]
    return {
        **average_precision(
            owners, scores, hits, expected, {"ap": slice(0, 10), "ap50": slice(0, 1), "ap75": slice(5, 6)}
        ),
        **found_statistics("instance", matched, given, expected),
        "matched_iou": ratio_of([sample.iou for sample in seen], matched),
        "pq": ratio_of(quality, above + (given - above) / 2 + (expected - above) / 2),
        "instance_count_exact": mean_of([None if number is None else number == 0 for number in missed]),
        "instance_count_mae": mean_of(missed),
        "overlapping_pairs": ratio_of([s.overlapping_pairs for s in seen], [s.pairs for s in seen]),
    }


@dataclass(frozen=True)
class _Matched:
    """The matches of a sample.

    Attributes:
        hits: (10, P) bool, whether each prediction matches at each of `_THRESHOLDS`.
        scores: (P,) float.
        expected: number of objects.
        iou: sum over the pairs that match at IoU >= 0.5.
        above, quality: number and sum of IoUs of the pairs that match at IoU > 0.5.
        pairs, overlapping_pairs: of predictions.
    """

    hits: np.ndarray
    scores: np.ndarray
    expected: int = 0
    iou: float = 0.0
    above: int = 0
    quality: float = 0.0
    pairs: int = 0
    overlapping_pairs: int = 0


_NOTHING = _Matched(np.zeros((len(_THRESHOLDS), 0), dtype=bool), np.zeros(0))


def _match(entry: Mapping[str, Any]) -> _Matched | None:
    measured = entry.get("instances")
    if measured is None or entry["error"] is not None:
        return None
    ious, scores = _table(measured)
    matches = match(ious, scores, (*_THRESHOLDS, _ABOVE_HALF))
    at_half, above = (_matched_ious(ious, matches[row]) for row in (0, -1))
    pairs = {key: measured[key] for key in ("pairs", "overlapping_pairs")}
    half, strict = float(at_half.sum()), float(above.sum())
    return _Matched(matches[:-1] >= 0, scores, ious.shape[1], half, len(above), strict, **pairs)


def _table(measured: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """IoUs (P, T) and scores (P,) of a sample; a score that is not finite is -inf."""
    scores = np.array([-np.inf if score is None else score for score in measured["scores"]], dtype=np.float64)
    areas, truth_areas = (np.array(measured[key], dtype=np.float64) for key in ("areas", "truth_areas"))
    ious = np.zeros((len(areas), len(truth_areas)))
    if measured["overlaps"]:
        rows, columns, shared = np.array(measured["overlaps"]).T
        ious[rows, columns] = shared / (areas[rows] + truth_areas[columns] - shared)
    return ious, scores


def _matched_ious(ious: np.ndarray, matches: np.ndarray) -> np.ndarray:
    matched = np.flatnonzero(matches >= 0)
    return np.asarray(ious[matched, matches[matched]])


def _ious(first: Sequence[Rle], second: Sequence[Rle]) -> np.ndarray:
    """IoUs (P, T) of masks by pycocotools; 0 where both are empty."""
    if not first or not second:
        return np.zeros((len(first), len(second)))
    return np.asarray(coco.iou(list(first), list(second), [0] * len(second)))


def _shared(ious: np.ndarray, areas: np.ndarray, truth_areas: np.ndarray) -> np.ndarray:
    """The (P, T) whole numbers of pixels that pairs of masks share."""
    return np.asarray(np.rint(ious * (areas[:, None] + truth_areas) / (1 + ious)), dtype=np.int64)
