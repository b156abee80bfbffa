"""Which bands of a raster are shown as red, green and blue, or as grey, and which one is transparency."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp

from satlisa.data.notes import TWO_BANDS, note
from satlisa.data.rasters import colour_named
from satlisa.data.stretch import full_scale, is_transparency
from satlisa.errors import SatlisaError

_COLOURS = ("red", "green", "blue")
_SAMPLE = 1024  # pixels on a side of the sample of an alpha band


@dataclass(frozen=True)
class Bands:
    """Bands as GDAL counts them, from 1.

    Attributes:
        shown: one (grey or palette) or three (red, green, blue).
        alpha: the band of transparency, or None; `opaque` is its value where nothing shines through.
        palette: (256, 4) uint8, the colours of the values of the shown band, or None.
    """

    shown: tuple[int, ...]
    alpha: int | None = None
    opaque: float = 255.0
    palette: np.ndarray | None = None


def choose_bands(dataset: Any, name: str, asked: Sequence[int] | None = None) -> Bands:
    """The bands of an open rasterio dataset that a person sees.

    By default the first three that are red, green and blue by colour interpretation or description, else 1, 2, 3; a
    raster of one or two bands is grey.

    Args:
        asked: one or three band numbers, which take precedence.

    Raises:
        SatlisaError: a band that the file does not have, a count other than one and three, or complex numbers.
    """
    alpha, opaque = _alpha(dataset, name)
    others = [band for band in dataset.indexes if band != alpha]
    if asked is not None:
        shown = _asked(asked, dataset.count, name)
        alpha = None if alpha in shown else alpha
    elif named := _named(dataset):
        shown = named
    else:
        if len(others) == 2:
            note(name, TWO_BANDS)
        if len(others) > 3:
            note(name, f"has {len(others)} bands without names; 1, 2, 3 are taken as red, green, blue; or give --bands")
        shown = tuple(others[:3]) if len(others) > 2 else tuple(others[:1] or [1])
    if any(np.dtype(dataset.dtypes[band - 1]).kind not in "uif" for band in shown):
        raise SatlisaError(f"{name}: pixels of {dataset.dtypes[shown[0] - 1]} are not read; save magnitudes as floats")
    return Bands(shown, alpha, opaque, _palette(dataset, shown))


def _asked(asked: Sequence[int], count: int, name: str) -> tuple[int, ...]:
    if isinstance(asked, int | str) or not all(isinstance(band, int | np.integer) for band in asked):
        raise SatlisaError(f"--bands: expected band numbers such as (4, 3, 2), found {asked!r}")
    if len(asked) not in (1, 3):
        raise SatlisaError(f"--bands: expected one band or three (red, green, blue), found {len(asked)}")
    if wrong := [band for band in asked if not 1 <= band <= count]:
        raise SatlisaError(f"--bands: {name} has bands 1 to {count}, found {wrong[0]}")
    return tuple(map(int, asked))


def _named(dataset: Any) -> tuple[int, ...] | None:
    """Red, green and blue by colour interpretation, else by description; None without all three."""
    roles = [role.name for role in dataset.colorinterp]
    descriptions = [colour_named(text or "") or "" for text in dataset.descriptions]
    for names in (roles, descriptions):
        if set(_COLOURS) <= set(names):
            return tuple(names.index(colour) + 1 for colour in _COLOURS)
    return None


def _alpha(dataset: Any, name: str) -> tuple[int | None, float]:
    """The band marked as transparency, unless its values are those of a sensor's band; and its opaque value."""
    marked = [n + 1 for n, role in enumerate(dataset.colorinterp) if role == ColorInterp.alpha]
    marked = [band for band in marked if colour_named(dataset.descriptions[band - 1] or "") in (None, "alpha")]
    if not marked or dataset.count == 1:
        return None, 255.0
    shape = (min(_SAMPLE, dataset.height), min(_SAMPLE, dataset.width))
    sample = dataset.read(marked[0], out_shape=shape)
    if is_transparency(sample):
        return marked[0], full_scale(sample)
    note(name, f"has band {marked[0]} marked as transparency with the values of a sensor's band; it is left out")
    return None, 255.0


def _palette(dataset: Any, shown: tuple[int, ...]) -> np.ndarray | None:
    if len(shown) != 1 or dataset.colorinterp[shown[0] - 1] != ColorInterp.palette:
        return None
    try:
        colours = dataset.colormap(shown[0])
    except ValueError:  # the role without a table
        return None
    table = np.zeros((max(256, max(colours) + 1), 4), dtype=np.uint8)
    table[list(colours)] = list(colours.values())
    return table
