"""Batches for the second stage of SAM's pretraining: pictures with prompts, the masks to predict, and dense targets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from satlisa.data.synthetic.terrain import SIDE
from satlisa.demo.chips import Chip
from satlisa.demo.collages import Collage, recoloured
from satlisa.demo.gallery import Exhibit, ScenePool
from satlisa.demo.place_features import LABELS
from satlisa.demo.pretrain_sam import draw_mask, draw_points, jittered

UNNAMED = len(LABELS)  # in place of a label's index
_LEAST = 60  # minimum pixels of a shape used as a target; one cell of the embedding has 64


@dataclass(frozen=True)
class Picture:
    """A collage whose surfaces may have names: `names[surface]` is an index in `LABELS`, or `UNNAMED`."""

    collage: Collage
    names: tuple[int, ...] = ()

    def name_of(self, surface: int) -> int:
        """The index of a surface's label, or `UNNAMED`."""
        return self.names[surface] if surface < len(self.names) else UNNAMED


@dataclass(frozen=True)
class SamBatch:
    """B pictures, and a prompt of each kind with its mask (·, 1, SIDE / 2, SIDE / 2) bool.

    Attributes:
        pixels: (B, SIDE, SIDE, 3) uint8.
        boxes: (B, 1, 4) in pixels; points: (B, 1, 1, 2), as (x, y).
        names: (B', 1), of the last B' pictures, those that have any.
        kinds: (B', labels, SIDE / 2, SIDE / 2) bool, where each kind of object is.
        edges: (B", 1, SIDE / 2, SIDE / 2) bool, where shapes meet, of the first B" pictures: all shapes are known.
    """

    pixels: Tensor
    boxes: Tensor
    box_masks: Tensor
    points: Tensor
    point_masks: Tensor
    names: Tensor
    name_masks: Tensor
    kinds: Tensor
    edges: Tensor


def as_picture(exhibit: Exhibit) -> Picture:
    """A scene as a picture: its objects are the shapes 1, 2, …, their labels the surfaces; 0 is background."""
    shapes = np.zeros((SIDE, SIDE), np.uint8)
    surfaces = np.zeros_like(shapes)
    labels = sorted({thing.label for thing in exhibit.plan.objects})
    for number, thing in enumerate(exhibit.plan.objects, start=1):
        mask = draw_mask([thing], SIDE)
        shapes[mask], surfaces[mask] = number, 1 + labels.index(thing.label)
    return Picture(Collage(exhibit.pixels, shapes, surfaces), (UNNAMED, *map(LABELS.index, labels)))


class SamLessons(Dataset[SamBatch]):
    """The batch of each step, the same in any process: a sixth collages, a third scenes, the rest chips, if any."""

    def __init__(
        self,
        scenes: Sequence[Exhibit],
        collages: Sequence[Collage],
        chips: Sequence[Chip],
        steps: int,
        batch_size: int,
        seed: int,
    ) -> None:
        self._scenes = ScenePool(scenes)
        self._collages, self._chips = collages, chips
        self._steps, self._seed = steps, seed
        self._num_collages, self._num_scenes = batch_size // 6, batch_size // 3
        self._num_chips = batch_size - self._num_collages - self._num_scenes
        if not chips:
            self._num_scenes, self._num_chips = self._num_scenes + self._num_chips, 0

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> SamBatch:
        rng = np.random.default_rng((self._seed, 2, step))
        pictures = [
            Picture(self._collages[i].turned(int(rng.integers(8))))
            for i in rng.integers(len(self._collages), size=self._num_collages)
        ]
        pictures += [as_picture(exhibit) for exhibit in self._scenes.draw(self._num_scenes, rng)]
        pictures += [self._cropped(rng) for _ in range(self._num_chips)]
        return make_batch(pictures, self._num_collages, rng, real=self._num_chips, recolour=True)

    def _cropped(self, rng: np.random.Generator) -> Picture:
        """A part of a chip with something to ask for."""
        while True:
            collage = self._chips[int(rng.integers(len(self._chips)))].crop(rng)
            if np.bincount(collage.shapes.ravel())[1:].max(initial=0) >= _LEAST:
                return Picture(collage, (UNNAMED, LABELS.index("building")))


def make_batch(
    pictures: Sequence[Picture], unnamed: int, rng: np.random.Generator, *, real: int = 0, recolour: bool = False
) -> SamBatch:
    """Prompts and targets; the first `unnamed` pictures have no names, of the last `real` not every shape is known."""
    boxed, pointed = ([_draw(x, by_surface=False, rng=rng)[0] for x in pictures] for _ in range(2))
    named = [_draw(x, by_surface=True, rng=rng) for x in pictures[unnamed:]]
    pixels = [x.collage.pixels for x in pictures]
    return SamBatch(
        torch.from_numpy(np.stack([recoloured(p, rng) if recolour and rng.random() < 0.8 else p for p in pixels])),
        jittered(np.array([[_box_of(mask)] for mask in boxed]), rng)["input_boxes"],
        _targets(boxed),
        torch.tensor(np.array([[draw_points(mask, 1, rng)] for mask in pointed])).float(),
        _targets(pointed),
        torch.tensor([[name] for _, name in named]),
        _targets([mask for mask, _ in named]),
        _halved(np.stack([_kinds(x) for x in pictures[unnamed:]])),
        torch.from_numpy(np.stack([_edges(x.collage.shapes)[None] for x in pictures[: len(pictures) - real]])),
    )


def _draw(picture: Picture, *, by_surface: bool, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """The mask (SIDE, SIDE) bool of a shape, or of a surface, and the index of its label."""
    numbers = picture.collage.surfaces if by_surface else picture.collage.shapes
    counts = np.bincount(numbers.ravel())
    counts[: 1 if picture.names else 0] = 0  # the background of a scene is no object
    number = rng.choice(np.flatnonzero(counts >= _LEAST))
    return numbers == number, picture.name_of(int(number)) if by_surface else UNNAMED


def _kinds(picture: Picture) -> list[np.ndarray]:
    """Where each of `LABELS` is, (SIDE, SIDE) bool each."""
    surfaces = picture.collage.surfaces
    names = np.array([picture.name_of(number) for number in range(int(surfaces.max()) + 1)])
    return [names[surfaces] == name for name in range(len(LABELS))]


def _edges(shapes: np.ndarray) -> np.ndarray:
    """Pixels (SIDE / 2, SIDE / 2) bool at half resolution beside another shape's, above, below, left or right."""
    coarse = shapes[::2, ::2]
    edges = np.zeros(coarse.shape, bool)
    down, right = coarse[1:] != coarse[:-1], coarse[:, 1:] != coarse[:, :-1]
    edges[1:] |= down
    edges[:-1] |= down
    edges[:, 1:] |= right
    edges[:, :-1] |= right
    return edges


def _targets(masks: Sequence[np.ndarray]) -> Tensor:
    return _halved(np.stack(masks)[:, None])


def _halved(masks: np.ndarray) -> Tensor:
    """Masks (…, SIDE, SIDE) at half resolution, (…, SIDE / 2, SIDE / 2) bool: pixels half covered or more."""
    half = SIDE // 2
    return torch.from_numpy(masks.reshape(*masks.shape[:-2], half, 2, half, 2).mean((-3, -1)) >= 0.5)


def _box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) of a mask, in pixels."""
    rows, columns = np.nonzero(mask)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
