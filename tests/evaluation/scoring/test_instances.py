"""Instances against pycocotools, and against values computed by hand."""

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest

from satlisa.evaluation.scoring.bootstrap import intervals, value_of
from satlisa.evaluation.scoring.instances import (
    DEFINITIONS,
    encode_masks,
    encode_regions,
    matched_pairs,
    measure,
    statistics,
)
from satlisa.geometry.raster import rasterize
from tests.helpers.coco_scenes import SIDE, Scene, box, coco_scores, encode, scenes

# Printed by `python -m tests.helpers.coco_scenes` with pycocotools 2.0.11.
STORED = {
    45: {"ap": 0.3156786050512621, "ap50": 0.6168043857356921, "ap75": 0.27726678916980424},
    27: {"ap": 0.3142824884640784, "ap50": 0.6150661782814419, "ap75": 0.26690615259325495},
}


def _entry(truths: Sequence[np.ndarray], masks: Sequence[np.ndarray], scores: Sequence[float] = ()) -> dict:
    measured = measure(encode_masks(masks), encode_masks(truths), scores or [0.5] * len(masks))
    return {"error": None, "instances": json.loads(json.dumps(measured, allow_nan=False))}


def _entries(images: Sequence[Scene]) -> list[dict]:
    return [_entry(image.truths, image.masks, image.scores) for image in images]


def _values(entries: Sequence[dict]) -> dict[str, float | None]:
    return {key: value_of(statistic, len(entries)) for key, statistic in statistics(entries).items()}


@pytest.mark.parametrize("count", STORED)
def test_equals_stored_and_live_values_of_pycocotools(count: int) -> None:
    images = scenes(count)
    values = _values(_entries(images))
    ours = {key: values[key] for key in ("ap", "ap50", "ap75")}
    assert ours == pytest.approx(STORED[count], abs=1e-12)
    assert ours == pytest.approx(coco_scores(images), abs=1e-12)
    assert list(values) == list(DEFINITIONS)


def test_drawn_samples_equal_repeated_images() -> None:
    images = scenes(9)
    for rank, image in enumerate(images):  # no score twice, so that the order of equal ones does not matter
        image.scores = [score + (rank * 100 + place) / 1e5 for place, score in enumerate(image.scores)]
    counts = np.random.default_rng(0).integers(0, 4, len(images))
    repeated = [image for image, times in zip(images, counts, strict=True) for _ in range(times)]
    drawn = {k: float(s(counts[None].astype(float))[0]) for k, s in statistics(_entries(images)).items()}
    assert drawn == pytest.approx(_values(_entries(repeated)), abs=1e-12)
    assert {key: drawn[key] for key in ("ap", "ap50", "ap75")} == pytest.approx(coco_scores(repeated), abs=1e-12)


def test_one_mask_over_two_objects() -> None:
    """Its IoU with each half is 0.5, which COCO matches and panoptic quality, > 0.5, does not; with thirds no match."""
    halves = [box(0, 0, 10, 10), box(10, 0, 20, 10)]
    values = _values([_entry(halves, [halves[0] | halves[1]])])
    assert values["instance_precision"] == 1.0 and values["instance_recall"] == 0.5
    assert values["instance_f1"] == pytest.approx(2 / 3)
    assert values["matched_iou"] == 0.5 and values["pq"] == 0.0
    assert values["instance_count_exact"] == 0.0 and values["instance_count_mae"] == 1.0
    assert values["ap50"] == pytest.approx(51 / 101)
    thirds = [box(0, 0, 10, 10), box(20, 0, 30, 10), box(40, 0, 50, 10)]
    values = _values([_entry(thirds, [thirds[0] | thirds[1] | thirds[2]])])
    assert values["instance_f1"] == values["pq"] == values["ap"] == 0.0 and values["matched_iou"] is None


def test_unequal_objects_under_one_mask() -> None:
    large, small = box(0, 0, 10, 10), box(10, 0, 15, 10)
    values = _values([_entry([large, small], [large | small])])
    assert values["matched_iou"] == pytest.approx(2 / 3)
    assert values["pq"] == pytest.approx((2 / 3) / 1.5)


def test_duplicates_are_one_true_and_one_false_positive() -> None:
    values = _values([_entry([box(0, 0, 10, 10)], [box(0, 0, 10, 10)] * 2, [0.9, 0.8])])
    assert values["instance_precision"] == 0.5 and values["instance_recall"] == 1.0
    assert values["instance_f1"] == pytest.approx(2 / 3) and values["pq"] == pytest.approx(2 / 3)
    assert values["overlapping_pairs"] == 1.0 and values["ap"] == 1.0  # the false positive ranks after the object


def test_nothing_expected() -> None:
    nothing, invented = _entry([], []), _entry([], [box(0, 0, 10, 10)])
    assert {key: value for key, value in _values([nothing]).items() if value is not None} == {
        "instance_count_exact": 1.0,
        "instance_count_mae": 0.0,
    }
    values = _values([invented])
    assert values["instance_precision"] == values["instance_f1"] == values["pq"] == 0.0
    assert values["ap"] is None and values["instance_recall"] is None  # COCO has no value without objects either
    assert values["instance_count_exact"] == 0.0 and values["instance_count_mae"] == 1.0
    right = _entry([box(0, 0, 10, 10)], [box(0, 0, 10, 10)], [0.5])
    invented["instances"]["scores"] = [0.9]
    assert _values([right, nothing])["ap"] == 1.0
    assert _values([right, invented])["ap"] == pytest.approx(0.5)  # and it counts among other samples


def test_an_answer_without_masks_counts_zero() -> None:
    values = _values([_entry([box(0, 0, 10, 10)] * 2, [])])
    zero = ("ap", "ap50", "ap75", "instance_precision", "instance_recall", "instance_f1", "pq", "instance_count_exact")
    assert all(values[key] == 0.0 for key in zero)
    assert values["instance_count_mae"] == 2.0 and values["overlapping_pairs"] is None


@pytest.mark.parametrize("number", [1, 2, 150])  # 150: COCO's own evaluation would take the first 100
def test_the_truth_scores_one(number: int) -> None:
    truths = [box(4 * (n % 16), 4 * (n // 16), 4 * (n % 16) + 3, 4 * (n // 16) + 3) for n in range(number)]
    values = _values([_entry(truths, truths), _entry([], [])])
    expected = dict.fromkeys(DEFINITIONS, 1.0) | {"instance_count_mae": 0.0}
    assert values == expected | {"overlapping_pairs": None if number == 1 else 0.0}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_rank_last(bad: float) -> None:
    truth, far = box(0, 0, 10, 10), box(30, 30, 40, 40)
    entry = _entry([truth], [far, truth], [bad, -5.0])
    assert entry["instances"]["scores"] == [None, -5.0]
    assert _values([entry])["ap"] == 1.0
    assert _values([_entry([truth], [truth, far], [bad, -5.0])])["ap"] == pytest.approx(0.5)


def test_what_is_kept_is_exact_and_small() -> None:
    measured = measure(encode_masks([box(0, 0, 3, 1), box(9, 9, 9, 9)]), encode_masks([box(1, 0, 4, 1)]), [0.5, 0.25])
    assert measured == {
        "scores": [0.5, 0.25],
        "areas": [3, 0],
        "truth_areas": [3],
        "overlaps": [[0, 0, 2]],
        "pairs": 1,
        "overlapping_pairs": 0,
    }
    rng = np.random.default_rng(0)
    first, second = (rng.random((2, 500, 700)) < 0.6 for _ in range(2))
    kept = measure(encode_masks(first), encode_masks(second), [1, 2])["overlaps"]
    assert kept == [[p, t, int((first[p] & second[t]).sum())] for p in range(2) for t in range(2)]


def test_matched_pairs_for_pictures() -> None:
    entry = _entry([box(0, 0, 10, 10), box(20, 0, 30, 10)], [box(50, 0, 60, 9), box(20, 0, 30, 9), box(0, 0, 10, 9)])
    assert matched_pairs(entry["instances"]) == [(1, 1), (2, 0)]
    assert matched_pairs(_entry([], [])["instances"]) == []


def test_entries_without_instances_count_nothing_but_stay() -> None:
    entry = _entry([box(0, 0, 10, 10)], [box(0, 0, 10, 10)])
    others = [{"error": None}, {"error": None, "instances": None}, {**_entry([], [box(0, 0, 9, 9)]), "error": "x"}]
    assert statistics(others) == {} and statistics([]) == {}
    values = _values([others[0], entry, *others[1:]])
    assert values["ap"] == values["instance_f1"] == values["instance_count_exact"] == 1.0
    found = intervals(statistics([entry, *others]), 4, draws=200)
    assert found["instance_f1"] == [1.0, 1.0] and found["ap"] == [1.0, 1.0]


def test_sizes_and_numbers_must_agree() -> None:
    mask = box(0, 0, 10, 10)
    with pytest.raises(ValueError, match="2 scores of 1 masks"):
        measure(encode_masks([mask]), [], [1, 2])
    with pytest.raises(ValueError, match=r"one size, found \(63, 64\), \(64, 64\)"):
        measure(encode_masks([mask]), encode_masks([mask[1:]]), [1])


def test_regions_are_encoded_as_they_are_drawn() -> None:
    square = np.array([[0.1, 0.1], [0.5, 0.1], [0.5, 0.6], [0.1, 0.6]])
    point = np.full((3, 2), 0.5)
    encoded = encode_regions([(square, square + 0.3), (point,), ()], SIDE, SIDE)
    assert encoded == [encode(rasterize([square, square + 0.3], SIDE, SIDE))]
    assert encode_masks([rasterize([square], 40, 30)]) == encode_regions([(square,)], 40, 30)
