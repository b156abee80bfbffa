"""Coordinates of a row → fractions of the image's width and height: units, limits, and what was met."""

from dataclasses import dataclass, field

import numpy as np

from satlisa.data.json_cells import describe
from satlisa.data.masks import Outline
from satlisa.geometry.regions import Region

_UNITS = 1000.0  # coordinates are thousandths of the image's width and height
_HIGHEST = 1.01  # as a fraction: half a pixel beyond the edge of an image of 64 pixels, and rounding
# Limit on the horizontal length of all outlines, in image widths: 2,500 outlines of the full image. No annotation has
# more, and more take seconds to draw.
_MOST_WIDTHS = 5000


@dataclass
class Reading:
    """How the coordinates of a row are read, and which were met.

    Attributes:
        size: (width, height) of the upright image in pixels, which a mask of pixels must fit; None: not known.
        orientation: EXIF's of the image; a mask that fits the image as it is stored is turned with it.
        instances: a mask image may hold several objects, one for each of its values.
        fractions: the dataset's coordinates are fractions, so whole numbers from 0 to 1 are fractions too.
        decode: read the pixels of mask images in columns; else each stands for one region without polygons.
        numbers: coordinates as they were written, (P, 2) per list of objects.
    """

    size: tuple[int, int] | None = None
    orientation: int = 1
    instances: bool = False
    fractions: bool = False
    decode: bool = True
    numbers: list[np.ndarray] = field(default_factory=list)


def to_regions(objects: list[list[np.ndarray | Outline]], how: Reading) -> list[Region]:
    """Polygons in fractions: thousandths are converted, fractions kept (`polygons.parse_regions`), masks checked."""
    rings = [ring for rings in objects for ring in rings if isinstance(ring, np.ndarray)]
    how.numbers.append(numbers := np.concatenate([np.empty((0, 2)), *rings]))
    near = bool(np.all((numbers >= -1) & (numbers <= 2)))
    units = 1.0 if near and (how.fractions or np.any(numbers % 1)) else _UNITS
    if len(numbers) and numbers.max() > _HIGHEST * units:
        raise ValueError(
            f"expected coordinates from 0 to 1000, thousandths of the image's width and height, found {numbers.max():g}"
        )
    if units == _UNITS and (ring := next((ring for ring in rings if _is_in_fractions(ring)), None)) is not None:
        raise ValueError(f"expected coordinates of one unit, found {describe(ring[0].tolist())} among thousandths")
    if len(numbers) > _MOST_WIDTHS:
        steps = (np.diff(ring[:, 0], append=ring[:1, 0]) for ring in (np.clip(ring / units, 0, 1) for ring in rings))
        widths = sum(float(np.abs(step).sum()) for step in steps)
        if widths > _MOST_WIDTHS:
            raise ValueError(f"outlines run {widths:,.0f} times across the image; at most {_MOST_WIDTHS:,} are drawn")
    return [
        tuple(ring.fit(how.size, how.orientation) if isinstance(ring, Outline) else ring / units for ring in rings)
        for rings in objects
    ]


def _is_in_fractions(ring: np.ndarray) -> bool:
    """Whether a polygon is in fractions: as thousandths, it would be smaller than a thousandth of the image."""
    return len(ring) > 2 and bool(np.all((ring >= 0) & (ring <= 1)) and np.any(ring % 1))
