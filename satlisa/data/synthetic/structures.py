"""Roads, trees, buildings and planes, drawn with Pillow at SCALE pixels per unit.

Outlines are (P, 2) float arrays of (x, y) in units. The sun is in the upper left; shadows fall to the lower right.
"""

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from satlisa.data.synthetic.terrain import SIDE

SCALE = 2  # pixels per unit while drawing
SUN = np.array([0.8, 0.6])  # offset of a shadow per unit of height
Colour = tuple[int, int, int]

HOUSE_ROOFS: list[Colour] = [(172, 84, 62), (190, 112, 76), (120, 66, 52), (108, 112, 122), (92, 84, 80), (150, 70, 70)]
HALL_ROOFS: list[Colour] = [(224, 226, 226), (198, 202, 206), (104, 142, 178), (236, 232, 220), (130, 168, 160)]
BARN_ROOFS: list[Colour] = [(164, 60, 50), (206, 208, 208), (138, 76, 60)]
CLAY_ROOFS: list[Colour] = [(244, 240, 230), (150, 102, 76), (126, 92, 80)]
TAILS: list[Colour] = [(196, 40, 44), (34, 76, 156), (30, 130, 84), (232, 150, 30)]
_PLANE = np.array(  # right half of a plane, nose up, nose to tail, within 1 × 1
    [(0.0, -0.5), (0.06, -0.45), (0.09, -0.34), (0.095, -0.16), (0.48, 0.08), (0.48, 0.21), (0.095, 0.14),
     (0.085, 0.29), (0.23, 0.40), (0.23, 0.49), (0.0, 0.46)]
)  # fmt: skip


def placed(outline: np.ndarray, centre: np.ndarray, angle: float) -> np.ndarray:
    """An outline around the origin, rotated by `angle` radians and moved to `centre`."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray(outline @ turn.T + centre)


def rectangle(width: float, height: float) -> np.ndarray:
    """Corners of a rectangle around the origin: (4, 2)."""
    return np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (width / 2, height / 2)


def ell(width: float, height: float, cut: float) -> np.ndarray:
    """An L shape: a rectangle without its lower right corner, `cut` (0..1) of both sides."""
    x, y = width / 2, height / 2
    return np.array(
        [(-x, -y), (x, -y), (x, y - cut * height), (x - cut * width, y - cut * height), (x - cut * width, y), (-x, y)]
    )


def plane_outline(length: float) -> np.ndarray:
    """Outline of a plane around the origin, nose up: (20, 2)."""
    left = _PLANE[-2:0:-1] * (-1, 1)
    return np.concatenate([_PLANE, left]) * length


class Canvas:
    """The image being drawn: SIDE·SCALE pixels square, all coordinates in units."""

    def __init__(self, ground: np.ndarray) -> None:
        self.image = _enlarged(ground.clip(0, 255))
        self.pen = ImageDraw.Draw(self.image)

    def polygon(self, outline: np.ndarray, colour: Colour) -> None:
        """Fill an outline."""
        self.pen.polygon(_points(outline), fill=colour)

    def line(self, points: np.ndarray, colour: Colour, width: float) -> None:
        """Draw a line of `width` units."""
        self.pen.line(_points(points), fill=colour, width=max(1, round(width * SCALE)))

    def disc(self, centre: np.ndarray, radius: float, colour: Colour) -> None:
        """Fill a disc."""
        (x, y), r = centre * SCALE, radius * SCALE
        self.pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def shadows(self, outlines: list[np.ndarray], heights: list[float]) -> None:
        """Draw the shadows of bodies with these outlines and heights (units), before the bodies."""
        mask = Image.new("L", self.image.size)
        pen = ImageDraw.Draw(mask)
        for outline, height in zip(outlines, heights, strict=True):
            for step in np.linspace(0, height, 5):
                pen.polygon(_points(outline + SUN * step), fill=120)
        dark = ImageChops.multiply(self.image, Image.new("RGB", self.image.size, (60, 62, 90)))
        self.image.paste(dark, mask=mask.filter(ImageFilter.BoxBlur(1)).point(lambda value: int(value * 1.5)))

    def cover(self, colour: np.ndarray, opacity: np.ndarray) -> None:
        """Blend a (SIDE, SIDE, 3) colour over the image with a (SIDE, SIDE) opacity of 0..1."""
        self.image.paste(_enlarged(colour.clip(0, 255)), mask=_enlarged(opacity * 255))

    def finish(self, rng: np.random.Generator, size: int) -> Image.Image:
        """The final image, `size` pixels square, with haze, exposure and sensor noise."""
        how = Image.Resampling.BOX if size == SIDE else Image.Resampling.LANCZOS
        small = np.asarray(self.image.resize((size, size), how))
        exposure = rng.uniform(0.88, 1.1) * rng.uniform(0.97, 1.03, 3)
        grain = rng.normal(0, 3.5, (size, size, 1))
        return Image.fromarray((small * exposure + grain + rng.uniform(0, 8)).clip(0, 255).astype(np.uint8))


def _enlarged(values: np.ndarray) -> Image.Image:
    """(SIDE, SIDE, …) 0..255 as an image at the canvas's resolution."""
    return Image.fromarray(values.astype(np.uint8)).resize((SIDE * SCALE,) * 2, Image.Resampling.BILINEAR)


def draw_road(canvas: Canvas, ends: np.ndarray, width: float, *, paved: bool) -> None:
    """A straight road between two points (2, 2); paved ones have kerbs and a dashed line."""
    if not paved:
        canvas.line(ends, (168, 142, 104), width)
        canvas.line(ends, (184, 160, 122), width * 0.5)
        return
    canvas.line(ends, (176, 174, 168), width + 3)
    canvas.line(ends, (82, 82, 86), width)
    _draw_dashes(canvas, ends, (226, 222, 204), 0.9, length=7, period=14)


def draw_tree(canvas: Canvas, rng: np.random.Generator, centre: np.ndarray, radius: float) -> None:
    """A crown with its shadow and a sunlit side."""
    tone = rng.integers(-14, 15)
    canvas.disc(centre + SUN * radius * 0.5, radius, (34, 44, 30))
    canvas.disc(centre, radius, (48 + tone, 84 + tone, 40 + tone // 2))
    canvas.disc(centre - SUN * radius * 0.3, radius * 0.55, (74 + tone, 112 + tone, 56 + tone // 2))


def draw_gable(canvas: Canvas, corners: np.ndarray, colour: Colour) -> None:
    """A rectangular house: a ridge and two roof slopes, the sunlit one brighter."""
    if np.linalg.norm(corners[1] - corners[0]) < np.linalg.norm(corners[2] - corners[1]):
        corners = np.roll(corners, 1, axis=0)
    ridge = np.stack([(corners[0] + corners[3]) / 2, (corners[1] + corners[2]) / 2])
    for near, far in ((0, 1), (3, 2)):
        slope = np.stack([corners[near], corners[far], ridge[1], ridge[0]])
        lit = float(np.dot(slope.mean(0) - corners.mean(0), SUN)) < 0
        canvas.polygon(slope, _tone(colour, 1.12 if lit else 0.78))
    canvas.line(ridge, _tone(colour, 1.3), 0.8)


def draw_hall(canvas: Canvas, rng: np.random.Generator, outline: np.ndarray, colour: Colour) -> None:
    """A flat roof: parapet, seams and a few vents."""
    centre = outline.mean(0)
    canvas.polygon(outline, _tone(colour, 0.72))
    inner = centre + (outline - centre) * (1 - 2.4 / np.abs(outline - centre).max())
    canvas.polygon(inner, colour)
    for part in np.arange(0.14, 0.95, 0.14):
        seam = np.stack([inner[0] + (inner[1] - inner[0]) * part, inner[-1] + (inner[-1] - inner[0]) * 0])
        seam[1] = seam[0] + (inner[-1] - inner[0]) * (0.98 if len(inner) == 4 else 0.45)
        canvas.line(seam, _tone(colour, 0.9), 0.6)
    for _ in range(rng.integers(1, 4)):
        x, y = rng.uniform(0.15, 0.8), rng.uniform(0.12, 0.36)
        spot = inner[0] + (inner[1] - inner[0]) * x + (inner[-1] - inner[0]) * y
        canvas.polygon(rectangle(3.6, 3.0) + spot + SUN, _tone(colour, 0.5))
        canvas.polygon(rectangle(3.6, 3.0) + spot, (188, 190, 192))


def draw_runway(canvas: Canvas, ends: np.ndarray, width: float) -> None:
    """A runway between two points (2, 2): asphalt, white edges and a dashed middle."""
    _, across = _axes(ends)
    canvas.line(ends, (70, 71, 76), width)
    for side in (-0.42, 0.42):
        canvas.line(ends + across * width * side, (222, 222, 218), 1)
    _draw_dashes(canvas, ends, (232, 232, 228), 1.8, length=15, period=26)


def draw_apron(canvas: Canvas, runway: np.ndarray) -> None:
    """The concrete beside a runway (2, 2), on the side with more room, with yellow taxi lines."""
    along, across = _axes(runway)
    if across @ (SIDE / 2 - runway[0]) < 0:
        across = -across
    near, far = runway + across * 26, runway + across * 152
    canvas.polygon(np.concatenate([near, far[::-1]]), (150, 150, 146))
    for part in np.linspace(-SIDE, SIDE, 16):
        seam = runway.mean(0) + along * part
        canvas.line(np.stack([seam + across * 26, seam + across * 152]), (136, 136, 133), 0.8)
    for offset in (38, 96):
        canvas.line(runway + across * offset, (206, 176, 72), 1.2)


def draw_plane(canvas: Canvas, outline: np.ndarray, colour: Colour) -> None:
    """A parked plane: body, a bright back and a coloured tail."""
    canvas.polygon(outline, (236, 238, 240))
    canvas.line(np.stack([outline[0], outline[10]]), (255, 255, 255), 2)
    canvas.polygon(outline[[9, 10, 11]], colour)


def _draw_dashes(
    canvas: Canvas, ends: np.ndarray, colour: Colour, width: float, *, length: float, period: float
) -> None:
    """A dashed line between two points (2, 2); all sizes in units."""
    along, _ = _axes(ends)
    for start in np.arange(0, float(np.linalg.norm(ends[1] - ends[0])), period):
        canvas.line(np.stack([ends[0] + along * start, ends[0] + along * (start + length)]), colour, width)


def _axes(ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (2,) along and across the line between two points (2, 2)."""
    along = (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])
    return along, np.array([-along[1], along[0]])


def _tone(colour: Colour, light: float) -> Colour:
    """A colour made lighter or darker."""
    red, green, blue = (min(255, round(channel * light)) for channel in colour)
    return red, green, blue


def _points(outline: np.ndarray) -> list[tuple[float, float]]:
    """A list of points for Pillow, in pixels of the canvas."""
    return [(float(x), float(y)) for x, y in outline * SCALE]
