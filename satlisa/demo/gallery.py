"""Scenes for pretraining the backbone: rendered once, augmented by rotations and reflections of image and labels."""

import itertools
import multiprocessing
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from satlisa.data.synthetic.painter import draw_scene
from satlisa.data.synthetic.plan import Plan
from satlisa.data.synthetic.rows import scene_seeds
from satlisa.data.synthetic.terrain import SIDE

CROWDED = 5  # objects from which on a scene is crowded: one in seven has as many


@dataclass(frozen=True)
class Exhibit:
    """An image, (size, size, 3) uint8, and the plan of its contents."""

    pixels: np.ndarray
    plan: Plan

    def turned(self, number: int) -> "Exhibit":
        """One of the eight rotations and reflections: `number` 0..3 quarter turns, 4..7 the same after mirroring.

        Of the plan, objects and roads are transformed, and the objects re-sorted into reading order.
        """
        plan = copy(self.plan)
        objects = [replace(o, polygon=tuple(_turn(p, number, 1000) for p in o.polygon)) for o in plan.objects]
        plan.objects = tuple(sorted(objects, key=lambda o: (o.box[1], o.box[0])))
        plan.roads = [
            replace(road, ends=np.array([_turn((x, y), number, SIDE) for x, y in road.ends])) for road in plan.roads
        ]
        return Exhibit(turn_array(self.pixels, number), plan)

    @property
    def image(self) -> Image.Image:
        """The image for the models' processors."""
        return Image.fromarray(self.pixels)


class ScenePool:
    """Draws turned scenes that have objects, about half of them with objects of more than one label.

    By chance, a tenth of the scenes have both buildings and planes. Where a mask of all objects is nearly always
    right, nothing teaches SAM to tell them apart.
    """

    def __init__(self, gallery: Sequence[Exhibit]) -> None:
        self._any = [exhibit for exhibit in gallery if exhibit.plan.objects]
        self._mixed = [x for x in self._any if len({thing.label for thing in x.plan.objects}) > 1] or self._any

    def draw(self, count: int, rng: np.random.Generator) -> list[Exhibit]:
        """`count` scenes, with replacement: half of them (rounded down) mixed ones, if there are any, and last."""
        pools = [self._any] * (count - count // 2) + [self._mixed] * (count // 2)
        return [pool[rng.integers(len(pool))].turned(int(rng.integers(8))) for pool in pools]


def open_gallery(split: str, num_scenes: int, processes: int) -> list[Exhibit]:
    """Render the first scenes of a split of the demo dataset in parallel; 0.03 s each."""
    return _render(scene_seeds(split, num_scenes), processes)


def open_crowded(split: str, num_scenes: int, after: int, processes: int) -> list[Exhibit]:
    """Render the first crowded scenes of a split after its first `after` scenes; finding one takes 0.05 s."""
    further = (scene_seeds(split, number)[-1] for number in itertools.count(after + 1))
    crowded = (seed for seed in further if len(Plan(seed).objects) >= CROWDED)
    return _render([*itertools.islice(crowded, num_scenes)], processes)


def _render(seeds: Sequence[int], processes: int) -> list[Exhibit]:
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        pictures = pool.map(draw_scene, seeds, chunksize=16)
    return [Exhibit(np.array(picture), Plan(seed)) for picture, seed in zip(pictures, seeds, strict=True)]


def turn_array(array: np.ndarray, number: int) -> np.ndarray:
    """(H, W, …) mirrored left to right if `number` is 4..7, then rotated counterclockwise by quarter turns."""
    return np.ascontiguousarray(np.rot90(array[:, ::-1] if number >= 4 else array, number % 4))


def _turn(point: tuple[Any, Any], number: int, side: int) -> tuple[Any, Any]:
    """Transform a point of a square of this side likewise."""
    x, y = point
    if number >= 4:
        x = side - x
    for _ in range(number % 4):
        x, y = y, side - x
    return x, y
