"""An answer as the page shows it: the picture with a colour per object, and a row per object."""

from PIL import Image

from satlisa.geometry.overlay import colour_of, draw_objects
from satlisa.web.found import Found

HEADERS = ["", "object", "score", "pixels", "m²"]


def draw(found: Found, opacity: float) -> Image.Image:
    """The picture with its visible objects; `opacity` of their fillings, 0 to 1. Outlines stay."""
    return draw_objects(found.image, ((one.shown.mask(), one.number, True) for one in found.visible), opacity)


def rows(found: Found) -> list[list[str]]:
    """A row per object: its colour and whether it is shown, number, score, area in pixels and, with a CRS, in m²."""
    return [
        [
            _mark(one.number, one.number in found.hidden),
            str(one.number + 1),
            f"{one.score:.2f}",
            f"{one.pixels:,}",
            _area(found, one.feature.area if one.feature else 0.0),
        ]
        for one in found.objects
    ]


def object_at(found: Found, x: float, y: float) -> int | None:
    """The number of the smallest object at a point of the drawn picture, hidden ones included; None: there is none."""
    column, row = int(x), int(y)
    if not (0 <= row < found.image.height and 0 <= column < found.image.width):
        return None
    there = [one for one in found.objects if one.shown.mask()[row, column]]
    return min(there, key=lambda one: one.pixels).number if there else None


def _area(found: Found, area: float) -> str:
    if found.place is None:
        return "–"
    return f"{area:,.0f}" if area >= 100 else f"{area:,.1f}"


def _mark(number: int, is_hidden: bool) -> str:
    red, green, blue = (round(float(level)) for level in colour_of(number))
    title, sign = ("hidden; click to show", "☐") if is_hidden else ("shown; click to hide", "■")
    return f'<span title="{title}" style="color: rgb({red}, {green}, {blue})">{sign}</span>'
