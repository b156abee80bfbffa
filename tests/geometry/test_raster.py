"""The rasteriser against pycocotools and torchvision-free hand-drawn masks."""

import tracemalloc

import numpy as np
import pytest
from pycocotools import mask as coco

from satlisa.geometry import raster
from satlisa.geometry.raster import coverage, covered_pixels, rasterize, run_lengths


def random_polygon(rng: np.random.Generator, kind: str) -> np.ndarray:
    """Fractions around the image: any corners in any order, a star around the middle, or corners on a circle."""
    corners = int(rng.integers(3, 12))
    if kind == "self-intersecting":
        return rng.random((corners, 2))
    if kind == "out of range":
        return rng.random((corners, 2)) * 1.8 - 0.4
    angle = np.sort(rng.random(corners)) * 2 * np.pi
    radius = 0.2 + 0.3 * rng.random(corners) if kind == "star" else np.full(corners, 0.1 + 0.35 * rng.random())
    return 0.5 + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


@pytest.mark.parametrize("kind", ["star", "convex", "self-intersecting", "out of range"])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (200, 131), (512, 512)])
def test_equals_pycocotools(kind: str, height: int, width: int) -> None:
    """200 polygons of at least 400 pixels each."""
    rng, worst, seen = np.random.default_rng(0), 1.0, 0
    while seen < 200:
        polygon = random_polygon(rng, kind)
        flat = (polygon * (width, height)).ravel().tolist()
        theirs = coco.decode(coco.frPyObjects([flat], height, width))[..., 0].astype(bool)
        if theirs.sum() < 400:
            continue
        ours = rasterize([polygon], height, width)
        worst = min(worst, (ours & theirs).sum() / (ours | theirs).sum())
        seen += 1
    assert worst >= 0.99


def test_literal_masks() -> None:
    square = np.array([[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]])
    expected = np.zeros((4, 4), dtype=bool)
    expected[1:3, 1:3] = True
    assert np.array_equal(rasterize([square], 4, 4), expected)
    assert np.array_equal(rasterize([square[::-1]], 4, 4), expected)  # direction does not matter
    repeated = np.repeat(square, 2, axis=0)
    assert np.array_equal(rasterize([repeated], 4, 4), expected)
    wide = rasterize([square], 4, 8)
    assert wide.sum() == 8 and wide[1:3, 2:6].all()


def test_union_of_polygons_and_even_odd_inside_one() -> None:
    box = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    half = np.array([[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]])
    assert rasterize([half, box], 8, 8).all()  # union
    assert rasterize([np.concatenate([box, box])], 8, 8).sum() == 0  # twice around cancels
    bow = np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    drawn = rasterize([bow], 64, 64)
    assert drawn[32, 4] and drawn[32, 60] and not drawn[4, 32] and not drawn[60, 32]


@pytest.mark.parametrize(
    "polygon",
    [
        np.zeros((0, 2)),
        np.array([[0.5, 0.5]]),
        np.array([[0.1, 0.1], [0.9, 0.9]]),
        np.array([[0.5, 0.5]] * 5),
        np.array([[2.0, 2.0], [3.0, 2.0], [3.0, 3.0]]),
        np.array([[-5.0, 0.1], [-4.0, 0.9], [-3.0, 0.5]]),
    ],
    ids=["empty", "one point", "two points", "one point five times", "right of the frame", "left of the frame"],
)
def test_what_draws_nothing(polygon: np.ndarray) -> None:
    assert not rasterize([polygon], 32, 32).any()


def test_huge_coordinates_fill_the_frame() -> None:
    huge = np.array([[-1e30, -1e30], [1e30, -1e30], [1e30, 1e30], [-1e30, 1e30]])
    assert rasterize([huge], 16, 16).all()


def test_covered_pixels_counts_the_union_of_each_region() -> None:
    left, middle = (np.array([[x, 0.0], [x + 0.5, 0], [x + 0.5, 1], [x, 1]]) for x in (0.0, 0.25))
    regions = [(left,), (), (left, middle), (left[:2],), (middle, left, left), (middle,)]
    assert covered_pixels(regions, 10, 8).tolist() == [40, 0, 60, 0, 60, 40]
    assert covered_pixels([], 10, 8).tolist() == []


@pytest.mark.parametrize("band", [50, 2**19])
def test_run_lengths_are_those_of_the_mask(band: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster, "_BAND", band)
    rng, whole = np.random.default_rng(2), np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    kinds = ["star", "convex", "self-intersecting", "out of range"] * 8
    regions = [tuple(random_polygon(rng, kind) for _ in range(1 + number % 3)) for number, kind in enumerate(kinds)]
    for region in [(), (whole,), (whole + 2,), *regions]:
        mask = rasterize(region, 60, 47)
        counts = run_lengths(region, 60, 47)
        packed = coco.frPyObjects({"counts": counts, "size": [60, 47]}, 60, 47)
        assert packed["counts"] == coco.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
        assert sum(counts) == 60 * 47 and sum(counts[1::2]) == mask.sum()


@pytest.mark.parametrize("band", [50, 2**19])
def test_bands_and_company_change_nothing(band: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Polygons drawn together, in narrow bands of columns, give the union and the counts of each drawn alone."""
    rng = np.random.default_rng(3)
    polygons = [random_polygon(rng, kind) for kind in ("star", "self-intersecting", "out of range") for _ in range(5)]
    alone = [rasterize([polygon], 61, 83) for polygon in polygons]
    monkeypatch.setattr(raster, "_BAND", band)
    assert np.array_equal(rasterize(polygons, 61, 83), np.any(alone, axis=0))
    assert covered_pixels([(polygon,) for polygon in polygons], 61, 83).tolist() == [mask.sum() for mask in alone]
    pairs = [(polygons[i], polygons[i + 1]) for i in range(len(polygons) - 1)]
    unions = [int((alone[i] | alone[i + 1]).sum()) for i in range(len(polygons) - 1)]
    assert covered_pixels(pairs, 61, 83).tolist() == unions


def test_the_wildest_outline_needs_little_memory() -> None:
    """5 million crossings of columns, which would take 500 MB at once."""
    zigzag = np.random.default_rng(0).random((15_000, 2))
    tracemalloc.start()
    covered = rasterize([zigzag], 1024, 1024).mean()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.4 < covered < 0.6 and peak < 150e6


def test_coverage_is_the_covered_share() -> None:
    box = np.array([[0.0, 0.0], [0.375, 0.0], [0.375, 1.0], [0.0, 1.0]])  # 1.5 of 4 columns
    share = coverage([box], 4, 4, scale=(4, 4))
    assert share.dtype == np.float32
    np.testing.assert_array_equal(share, np.tile([1.0, 0.5, 0.0, 0.0], (4, 1)))


def test_run_lengths_at_the_edges(monkeypatch) -> None:
    full = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    assert run_lengths([full], 3, 4) == [0, 12]
    assert run_lengths([full * (0.5, 1.0)], 3, 4) == [0, 6, 6]
    assert run_lengths([full * (1.0, 0.5)], 2, 3) == [0, 1, 1, 1, 1, 1, 1]
    assert run_lengths([], 3, 4) == run_lengths([full[:2]], 3, 4) == [12]
    monkeypatch.setattr(raster, "_BAND", 1)  # one column at a time
    assert run_lengths([full, full * 0.5], 3, 4) == [0, 12]
