"""From numbers to 256 levels: what is kept, what is stretched, and what is "no data"."""

import tracemalloc

import numpy as np
import pytest

from satlisa.data.stretch import full_scale, is_transparency, to_8_bit

NOISE = np.random.default_rng(0)


def scene(low: float, high: float, kind: str, size: int = 64) -> np.ndarray:
    """(size, size, 3) values spread evenly between two ends."""
    return (low + (high - low) * NOISE.random((size, size, 3))).astype(kind)


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [
        *[(200, 2000, "u2"), (300, 3000, "u2"), (40_000, 42_000, "u2"), (-500, 900, "i2"), (0, 3e6, "u4")],
        *[(0, 3e9, "i8"), (0, 0.05, "f4"), (-1, 1, "f4"), (100, 900, "f8"), (-2, 1, "f2")],
    ],
)
def test_the_stretch_is_from_the_2_to_the_98_percent_quantile(low: float, high: float, kind: str) -> None:
    values = scene(low, high, kind)
    first, last = np.percentile(values.astype(float), (2, 98))
    expected = np.clip((values.astype(float) - first) / (last - first) * 255, 0, 255)
    assert np.abs(to_8_bit(values) - expected).max() <= 0.51
    assert len(np.unique(to_8_bit(values))) == 256


def test_bands_share_their_quantiles() -> None:
    """Stretched alone, each band would span all levels, and a green field would turn grey."""
    values = np.stack([scene(low, low + 500, "u2")[..., 0] for low in (200, 1200, 700)], axis=-1)
    red, green, blue = to_8_bit(values).reshape(-1, 3).mean(axis=0)
    assert red + 50 < blue < green - 50


@pytest.mark.parametrize("kind", ["u2", "i4", "f4"])
def test_hot_pixels_leave_the_levels_of_the_others(kind: str) -> None:
    values = scene(200, 2000, kind)
    calm = to_8_bit(values)
    values[5, 5], values[9, 9] = 65_535, 0
    assert np.abs(to_8_bit(values).astype(int) - calm)[20:].max() <= 1
    assert to_8_bit(values)[5, 5].tolist() == [255] * 3 and to_8_bit(values)[9, 9].tolist() == [0] * 3


@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "i4", "i8"])
def test_8_bit_values_are_kept_in_any_type(kind: str) -> None:
    values = scene(40, 90, kind)
    values[3, 3] = 255 if kind == "u1" else 200
    assert np.array_equal(to_8_bit(values), values)


def test_a_scale_that_is_used_is_kept() -> None:
    levels = NOISE.integers(0, 256, (32, 32, 3))
    assert np.array_equal(to_8_bit((levels * 257).astype(np.uint16)), levels)
    assert np.array_equal(to_8_bit((levels / 255).astype(np.float32)), levels)
    assert to_8_bit(np.array([[[False], [True]]])).ravel().tolist() == [0, 255]


@pytest.mark.parametrize("nothing", [np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, -3.4028235e38, 1e300])
def test_what_is_no_number_is_black_and_does_not_count(nothing: float) -> None:
    kind = "f8" if nothing == 1e300 else "f4"
    values = scene(100, 900, kind)
    calm = to_8_bit(values)
    with_border = np.concatenate([np.full((30, 64, 3), nothing, dtype=kind), values])
    assert not to_8_bit(with_border)[:30].any() and np.array_equal(to_8_bit(with_border)[30:], calm)
    values[40, 40, 1] = nothing  # its colour would be wrong
    assert not to_8_bit(values)[40, 40].any()


@pytest.mark.parametrize(
    ("kind", "nodata"), [("u2", 0), ("u2", 65_535), ("i2", -9999), ("i4", -(2**31)), ("f4", -9999), ("f4", 1e20)]
)
def test_nodata_is_black_and_does_not_count(kind: str, nodata: float) -> None:
    values = scene(100, 900, kind)
    with_border = np.concatenate([np.full((30, 64, 3), nodata, dtype=kind), values])
    seen = to_8_bit(with_border, nodata)
    assert not seen[:30].any() and np.array_equal(seen[30:], to_8_bit(values))


def test_one_band_may_reach_nodata() -> None:
    """A roof that saturates in one band is no hole."""
    values = np.full((4, 4, 3), 100, dtype=np.uint8)
    values[0, 0, 0], values[1, 1] = 255, 255
    seen = to_8_bit(values, 255)
    assert seen[0, 0].tolist() == [255, 100, 100] and seen[1, 1].tolist() == [0, 0, 0] and seen[2, 2].all()


def test_hidden_pixels_are_black_and_do_not_count() -> None:
    values = scene(100, 900, "u2")
    shown = np.ones((94, 64), dtype=bool)
    shown[:30] = False
    with_border = np.concatenate([np.full((30, 64, 3), 60_000, dtype=np.uint16), values])
    seen = to_8_bit(with_border, shown=shown)
    assert not seen[:30].any() and np.array_equal(seen[30:], to_8_bit(values))


@pytest.mark.parametrize("kind", ["u1", "i2", "f4"])
def test_without_any_data_all_is_black(kind: str) -> None:
    assert not to_8_bit(np.full((4, 5, 3), 77, dtype=kind), 77).any()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3000, 3), (3000, 1, 1), (2100, 2100, 1)])
def test_every_shape(shape: tuple[int, int, int]) -> None:
    values = (NOISE.random(shape) * 3000).astype(np.float32)
    assert to_8_bit(values).shape == shape


def test_few_bright_pixels_on_a_plain_ground_are_seen() -> None:
    values = np.full((50, 50, 1), 700, dtype=np.uint16)
    values[3, 3] = 900
    assert np.unique(to_8_bit(values)).tolist() == [0, 255]


def test_large_images_are_scaled_in_blocks() -> None:
    values = NOISE.integers(0, 3000, (2000, 2000, 3)).astype(np.uint16)
    tracemalloc.start()
    to_8_bit(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * values.size  # one float64 copy


def test_transparency_is_on_or_off() -> None:
    assert is_transparency(np.full((9, 9), 128, dtype=np.uint8))
    assert is_transparency(np.where(NOISE.random((64, 64)) < 0.4, 0, 255).astype(np.uint8))
    feathered = np.full((64, 64), 255, dtype=np.uint8)
    feathered[:, :8] = np.linspace(0, 255, 8)
    feathered[:8, :] = NOISE.integers(0, 256, (8, 64))
    assert is_transparency(feathered) and is_transparency(feathered.astype(np.uint16) * 257)


@pytest.mark.parametrize(("kind", "most"), [("u1", 255), ("u2", 2047), ("u2", 10_000), ("f4", 0.6), ("i2", 900)])
def test_the_values_of_a_sensor_are_no_transparency(kind: str, most: float) -> None:
    values = scene(0, most, kind)[..., 0]
    values[:20] = 0  # a lake
    assert not is_transparency(values)


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_near_infrared_of_water_is_no_transparency(kind: str) -> None:
    values = scene(1, 200 if kind == "u1" else 3000, kind)[..., 0]
    values[:52] = 0  # 80 %
    assert not is_transparency(values)
    values[52:] = 255 if kind == "u1" else 4095
    values[52] = np.arange(64)  # a feathered border
    assert is_transparency(values)


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_a_gradient_is_transparency_where_the_format_defines_alpha(kind: str) -> None:
    gradient = np.linspace(0, np.iinfo(kind).max, 64).astype(kind)[None].repeat(64, axis=0)
    for part in (gradient, gradient[:, 1:], gradient[:, :-1]):
        assert is_transparency(part, defined=True) and not is_transparency(part)
    assert not is_transparency(gradient[:, 1:-1], defined=True)  # neither clear nor opaque anywhere


def test_opaque_is_the_largest_value_of_the_bits_in_use() -> None:
    for most, kind, expected in [(128, "u1", 255), (1, "u2", 1), (255, "u2", 255), (2047, "u2", 2047), (1, "f4", 1)]:
        assert full_scale(np.array([[0, most]], dtype=kind)) == expected
