"""Plan a synthetic scene: its contents and their positions follow from a seed, before anything is drawn.

Nothing in a plan is ambiguous: buildings and planes are completely inside the frame and apart from each other, roads
cross the whole frame, and a building is either well inside the flood or well outside. Planning takes 3 ms, so questions
and answers about a scene do not need its image.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from satlisa.data.synthetic import structures, terrain
from satlisa.data.synthetic.terrain import SIDE

_GAP = 4.0  # units between structures, and between structures and roads or water
_TRIES = 30  # random positions tried for a structure before it is dropped
_DEEP = 0.75  # flood opacity under every part of a flooded building
ROADS = {
    "Farmland": (0, 2), "Forest": (0, 1), "Residential area": (1, 2), "Industrial area": (1, 2),
    "Airport": (0, 1), "River": (0, 1), "Desert": (0, 1),
}  # fmt: skip
BUILDINGS = {
    "Farmland": (0, 3), "Forest": (0, 2), "Residential area": (4, 8), "Industrial area": (2, 5),
    "Airport": (0, 2), "River": (0, 4), "Desert": (0, 4),
}  # fmt: skip
SCENE_CLASSES = tuple(BUILDINGS)
_LAKES = {"Farmland": 0.25, "Forest": 0.35, "Residential area": 0.15}  # chance of a lake
_FLOOD_CHANCE = 0.52  # except in deserts; 44 % of all scenes


@dataclass(frozen=True)
class SceneObject:
    """An annotated structure: `label` "building" or "plane"; `polygon` ((x, y), …), integers 0..1000 of the image."""

    label: str
    polygon: tuple[tuple[int, int], ...]
    flooded: bool = False

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom), 0..1000."""
        xs, ys = zip(*self.polygon, strict=True)
        return min(xs), min(ys), max(xs), max(ys)


@dataclass(frozen=True)
class Structure:
    """A building or plane to draw: `kind` is house, hall, barn, clay or plane; `outline` (P, 2) in units."""

    kind: str
    outline: np.ndarray
    flooded: bool

    def as_object(self) -> SceneObject:
        """The structure as an annotation."""
        points = np.rint(self.outline / SIDE * 1000).astype(int).tolist()
        label = "plane" if self.kind == "plane" else "building"
        return SceneObject(label, tuple((x, y) for x, y in points), self.flooded)


@dataclass(frozen=True)
class Road:
    """A straight strip across the frame: `ends` (2, 2) are outside it; `surface` is paved, dirt or runway."""

    ends: np.ndarray
    width: float
    surface: str


class Plan:
    """The layout of a scene; all distances are in units, and the frame is SIDE × SIDE units.

    `water` is None or the signed distance to the shore (SIDE, SIDE), negative in the water; `flood` is None or the
    opacity of muddy water (SIDE, SIDE), 0..1. `objects` are in reading order of their boxes (top, then left).
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._rng = rng = np.random.default_rng((seed, 0))
        self.scene_class = scene_class = SCENE_CLASSES[rng.integers(len(SCENE_CLASSES))]
        self.angle = float(rng.uniform(0, np.pi))  # of fields, streets and runways
        self._taken = Image.new("1", (SIDE, SIDE))
        self._pen = ImageDraw.Draw(self._taken)
        self.water = self._water()
        self.roads = self._roads()
        flooded = scene_class != "Desert" and rng.random() < _FLOOD_CHANCE
        self.flood = terrain.flood_opacity(rng) if flooded else None
        self.structures = self._structures()
        self.objects = tuple(sorted((s.as_object() for s in self.structures), key=lambda o: (o.box[1], o.box[0])))

    @property
    def num_roads(self) -> int:
        """Number of roads, runways excluded."""
        return sum(road.surface != "runway" for road in self.roads)

    def is_free(self, centre: np.ndarray, radius: float) -> bool:
        """Whether a square around `centre` overlaps no water, road or structure; outside the frame is free."""
        left, top = (int(v - radius) for v in centre)
        side = int(2 * radius) + 1
        return self._taken.crop((left, top, left + side, top + side)).getbbox() is None

    def _water(self) -> np.ndarray | None:
        if self.scene_class == "River":
            distance = terrain.river_distance(self._rng, self.angle)
        elif self._rng.random() < _LAKES.get(self.scene_class, 0):
            distance = terrain.lake_distance(self._rng)
        else:
            return None
        self._taken.paste(1, mask=Image.fromarray(distance < 6.0))  # the rim too
        return distance

    def _roads(self) -> list[Road]:
        """A runway on airports, and roads parallel or perpendicular to the scene's angle."""
        rng, (low, high) = self._rng, ROADS[self.scene_class]
        roads: list[Road] = []
        side = rng.choice([-1.0, 1.0])
        if self.scene_class == "Airport":
            roads.append(self._road(self.angle, side * rng.uniform(60, 82), 30, "runway"))
        surface = "paved" if self.scene_class in ("Residential area", "Industrial area", "Airport", "River") else "dirt"
        across = self.scene_class == "River" or rng.random() < 0.3
        for number in range(rng.integers(low, high + 1)):
            angle = self.angle + (np.pi / 2 if (number == 1) != across else 0)
            offset = rng.uniform(-60, 60)
            if roads and roads[0].surface == "runway":  # along the runway, beyond the apron
                angle, offset = self.angle, -side * rng.uniform(92, 102)
            roads.append(self._road(angle, offset, rng.uniform(9, 12), surface))
        return roads

    def _road(self, angle: float, offset: float, width: float, surface: str) -> Road:
        along = np.array([np.cos(angle), np.sin(angle)])
        middle = SIDE / 2 + offset * np.array([-np.sin(angle), np.cos(angle)])
        ends = np.stack([middle - along * SIDE, middle + along * SIDE])
        self._pen.line([tuple(end) for end in ends], fill=1, width=round(width + 2 * _GAP))
        return Road(ends, width, surface)

    def _structures(self) -> list[Structure]:
        rng, (low, high) = self._rng, BUILDINGS[self.scene_class]
        kinds = ["plane"] * int(rng.integers(1, 5)) if self.scene_class == "Airport" else []
        kinds += [_KINDS.get(self.scene_class, "house")] * int(rng.integers(low, high + 1))
        placed = (self._place(kind) for kind in kinds)
        return [structure for structure in placed if structure is not None]

    def _place(self, kind: str) -> Structure | None:
        """A structure at a free position, or None if none was found."""
        rng = self._rng
        for _ in range(_TRIES):
            quarter = rng.integers(4) * np.pi / 2
            angle = self.angle + quarter + rng.normal(0, 0.5 if kind == "plane" else 0.06)
            outline = structures.placed(_outline(rng, kind), rng.uniform(20, SIDE - 20, 2), angle)
            grown = outline + np.sign(outline - outline.mean(0)) * _GAP
            if outline.min() < 2 or outline.max() > SIDE - 2:
                continue
            body = Image.new("1", (SIDE, SIDE))
            ImageDraw.Draw(body).polygon([tuple(point) for point in grown], fill=1, outline=1)
            mask = np.asarray(body)
            depth = np.zeros(1) if self.flood is None else self.flood[mask]
            if (np.asarray(self._taken) & mask).any() or (depth.min() < _DEEP and depth.max() > 0):
                continue
            self._taken.paste(1, mask=body)
            return Structure(kind, outline, bool(depth.min() >= _DEEP))
        return None


_KINDS = {"Industrial area": "hall", "Airport": "hall", "Farmland": "barn", "Desert": "clay"}
_SIZES = {  # of a kind of building: its width and height in units, and the part that an L shape lacks
    "house": ((27, 36), (19, 25), None), "barn": ((32, 46), (20, 27), None),
    "hall": ((46, 74), (30, 46), 0.45), "clay": ((22, 34), (22, 34), 0.4),
}  # fmt: skip


def _outline(rng: np.random.Generator, kind: str) -> np.ndarray:
    """A random outline of this kind around the origin, at least 16 units on its shorter side."""
    if kind == "plane":
        return structures.plane_outline(rng.uniform(40, 58))
    widths, heights, cut = _SIZES[kind]
    width, height = rng.uniform(*widths), rng.uniform(*heights)
    if cut and rng.random() < 0.3:
        return structures.ell(width, height, cut)
    return structures.rectangle(width, height)
