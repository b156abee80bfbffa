"""What a session keeps of an answer: enough to draw, list and save it again without asking the model.

Full masks are kept as packed, compressed bits, and once more at the size of the page.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from satlisa.geometry.overlay import fit_within, reduce_mask
from satlisa.inference.generation import Answer
from satlisa.web.bits import Bits
from satlisa.web.outlines import trace
from satlisa.web.picture import Picture, Place

if TYPE_CHECKING:
    from satlisa.geo.features import Feature

LONGEST = 1024  # pixels of a side of the picture on the page


@dataclass(frozen=True)
class Object:
    """One mask of an answer.

    Attributes:
        number: from 0, of its `<SEG>`; decides the colour.
        mask: on the file's own pixel grid.
        shown: upright, at the size of the page.
        pixels: that it covers in the file.
        feature: with a CRS, its polygons in longitude and latitude and its area in m²; None where it is empty.
    """

    number: int
    mask: Bits
    shown: Bits
    score: float
    pixels: int
    feature: "Feature | None"


@dataclass(frozen=True)
class Found:
    """An answer about a picture, as a session keeps it.

    Attributes:
        name: of the picture's file.
        size: (height, width) of its pixel grid.
        image: upright RGB at the size of the page.
        hidden: numbers of objects that are neither drawn nor saved.
    """

    name: str
    prompt: str
    text: str
    size: tuple[int, ...]
    image: Image.Image
    objects: tuple[Object, ...]
    place: Place | None
    hidden: frozenset[int] = frozenset()

    @property
    def visible(self) -> list[Object]:
        """The objects that are not hidden."""
        return [one for one in self.objects if one.number not in self.hidden]

    def toggle(self, number: int) -> "Found":
        """Hide an object, or show it again."""
        return replace(self, hidden=self.hidden ^ {number})

    def union(self) -> np.ndarray:
        """(H, W) bool on the file's pixel grid: all visible objects."""
        union = np.zeros(self.size, dtype=bool)
        for one in self.visible:
            union |= one.mask.mask()
        return union


def keep(picture: Picture, prompt: str, answer: Answer) -> Found:
    """What a session keeps of an answer about the upright picture."""
    image, objects = fit_within(picture.opened.rgb, LONGEST), []
    for number, (upright, score) in enumerate(zip(answer.masks, answer.scores, strict=True)):
        mask = picture.to_grid(upright[None])[0]
        shown = reduce_mask(upright, image.size)
        feature = _on_the_ground(mask, picture.place, answer.text, float(score)) if picture.place else None
        pixels = int(np.count_nonzero(mask))
        objects.append(Object(number, Bits.of(mask), Bits.of(shown), float(score), pixels, feature))
    size = picture.to_grid(answer.masks[:0]).shape[1:]
    return Found(picture.name, prompt, answer.text, size, image, tuple(objects), picture.place)


def _on_the_ground(mask: np.ndarray, place: Place, text: str, score: float) -> "Feature | None":
    import shapely

    from satlisa.geo.features import Feature
    from satlisa.geo.features import place as to_ground
    from satlisa.geo.grid import Window
    from satlisa.geo.places import LON_LAT
    from satlisa.geo.polygons import valid

    polygons: list[Any] = [shapely.Polygon(rings[0], rings[1:]) for rings in trace(mask)]
    if not polygons:
        return None
    geometry = polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)
    feature = Feature(valid(geometry), text, score, Window(0, 0, 0, 0, 0, *mask.shape))
    return next(to_ground([feature], place.ground, (0, 0), output_crs=LON_LAT), None)
