"""A stage before the VLM's pretraining: its vision tower learns where things are, from a dense target.

A linear head on the image tokens, discarded afterwards, tells for each whether the centre of an object lies in it, and
of that object the class, the box, the digits of the box in text, and its number in reading order. Next-token loss alone
teaches places last: each answer has few digits, and each digit tells little about the image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.utils.data import Dataset

from satlisa.data.synthetic.plan import Plan, SceneObject
from satlisa.data.synthetic.terrain import SIDE
from satlisa.demo.boxes import Found
from satlisa.demo.fit import Loop, moved, say
from satlisa.demo.gallery import Exhibit
from satlisa.demo.place_features import LABELS
from satlisa.demo.tensors import Tower
from satlisa.demo.tiny_models import IMAGE_SIZE, IMAGE_TOKENS
from satlisa.processing.chat import IGNORE_INDEX

LEARNING_RATE = 1e-3
BATCH_SIZE = 32
_MOST_OBJECTS = 8  # of a scene
_HUNDREDS, _TENS = 11, 10  # digits of a side, 0 to 1000 in tens
_SPLIT = (1 + len(LABELS), 4, 4 * _HUNDREDS, 4 * _TENS, _MOST_OBJECTS, 2)
_FINE = 8  # raster of a cell in which roads are drawn
_END_WEIGHT = 4.0  # of a road's end, which few cells hold
_LEAST_ROAD = 3  # squares of this raster, of 64, that make a cell one with a road


@dataclass(frozen=True)
class DenseTarget:
    """What the head has to tell about B images of C cells, of which K hold an object's centre.

    Attributes:
        classes: (B, C) int64; 0: no centre, else 1 + the index in `LABELS`; -100: not known.
        held: (K,) int64, which of the B·C cells hold a centre.
        boxes: (K, 4) float32, (left, top, right, bottom) as fractions.
        middles: (C, 2) float32, of every cell, (x, y) as fractions.
        numbers: (K,) int64, from 0, in reading order.
        roads: (B, C, 2) float32, 1 where a road is in the cell, and where one leaves the image through it. A road has
            two such ends, so that roads can be counted.
    """

    classes: Tensor
    held: Tensor
    boxes: Tensor
    numbers: Tensor
    middles: Tensor
    roads: Tensor

    @property
    def offsets(self) -> Tensor:
        """Sides from the middles of their cells, (K, 4), in cells."""
        middles = self.middles[self.held % len(self.middles)]
        offsets: Tensor = (self.boxes - middles.repeat(1, 2)) * len(self.middles) ** 0.5
        return offsets

    @property
    def tens(self) -> Tensor:
        """Sides in hundredths, (K, 4) int64: the digits of the boxes in text, which are rounded to tens."""
        return (self.boxes * 100).round().long()


def dense_target(plans: Sequence[Plan | None], side: int) -> DenseTarget:
    """The target for scenes, whose objects are in reading order, with `side`² image tokens each; None: not known."""
    classes = torch.zeros(len(plans), side * side, dtype=torch.int64)
    roads = torch.zeros(len(plans), side * side, 2)
    cells: dict[int, tuple[int, SceneObject]] = {}
    for image, plan in enumerate(plans):
        if plan is None:
            classes[image] = IGNORE_INDEX
            continue
        roads[image] = torch.from_numpy(_road_cells(plan, side))
        for number, thing in enumerate(plan.objects[:_MOST_OBJECTS]):
            left, top, right, bottom = thing.box
            column, row = (min(side - 1, (low + high) * side // 2000) for low, high in ((left, right), (top, bottom)))
            classes[image, row * side + column] = 1 + LABELS.index(thing.label)
            cells[image * side * side + row * side + column] = number, thing  # of two in a cell, the later one
    return DenseTarget(
        classes,
        torch.tensor(list(cells), dtype=torch.int64),
        torch.tensor([thing.box for _, thing in cells.values()]).reshape(-1, 4) / 1000,
        torch.tensor([number for number, _ in cells.values()], dtype=torch.int64),
        cell_middles(side),
        roads,
    )


def _road_cells(plan: Plan, side: int) -> np.ndarray:
    """Where roads are, and where they leave the image, (side², 2) float32; runways are no roads."""
    fine = side * _FINE
    canvas = Image.new("1", (fine, fine))
    ends = np.zeros((side, side), np.float32)
    for road in plan.roads:
        if road.surface == "runway":
            continue
        first, last = road.ends / SIDE
        ImageDraw.Draw(canvas).line(
            [tuple(first * fine), tuple(last * fine)], fill=1, width=max(1, round(road.width * fine / SIDE))
        )
        along = first + np.linspace(0, 1, 1000)[:, None] * (last - first)
        inside = along[((along >= 0) & (along < 1)).all(axis=1)]
        for x, y in inside[[0, -1]] if len(inside) else ():
            ends[int(y * side), int(x * side)] = 1
    squares = np.asarray(canvas).reshape(side, _FINE, side, _FINE).sum((1, 3))
    return np.stack([squares >= _LEAST_ROAD, ends], axis=-1).reshape(-1, 2).astype(np.float32)


def cell_middles(side: int) -> Tensor:
    """The middles (x, y) of `side`² image tokens as fractions, (side², 2), row by row."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return (torch.stack([columns, rows], dim=-1).reshape(-1, 2) + 0.5) / side


class DenseHead(nn.Linear):
    """One linear layer on image tokens: classes, boxes, digits and numbers side by side."""

    def __init__(self, width: int) -> None:
        super().__init__(width, sum(_SPLIT))

    def loss(self, features: Tensor, target: DenseTarget) -> Tensor:
        """The head's loss on image tokens (B, C, width)."""
        classes, offsets, hundreds, tens, numbers, roads = self(features).flatten(0, 1).split(_SPLIT, dim=-1)
        loss = 4 * F.cross_entropy(classes, target.classes.flatten())
        known = target.classes.flatten() != IGNORE_INDEX
        weight = torch.tensor([1.0, _END_WEIGHT], device=roads.device)
        loss = loss + F.binary_cross_entropy_with_logits(
            roads[known], target.roads.flatten(0, 1)[known], pos_weight=weight
        )
        if not len(target.held):
            return loss
        digits = target.tens
        loss = loss + 4 * F.smooth_l1_loss(offsets[target.held], target.offsets, beta=0.1)
        for logits, wanted in ((hundreds, digits // 10), (tens, digits % 10)):
            loss = loss + 0.5 * F.cross_entropy(logits[target.held].unflatten(1, (4, -1)).mT, wanted)
        return loss + 0.5 * F.cross_entropy(numbers[target.held], target.numbers)

    @torch.no_grad()
    def report(self, features: Tensor, target: DenseTarget) -> str:
        """How often classes, digits and numbers are right where an object's centre is."""
        outputs = self(features).flatten(0, 1)
        classes, offsets, hundreds, tens, numbers, _ = outputs[target.held].split(_SPLIT, dim=-1)
        digits = target.tens
        rights = {
            "class": classes.argmax(-1) == target.classes.flatten()[target.held],
            "hundreds": hundreds.unflatten(1, (4, -1)).argmax(-1) == digits // 10,
            "tens": tens.unflatten(1, (4, -1)).argmax(-1) == digits % 10,
            "number": numbers.argmax(-1) == target.numbers,
        }
        error = (offsets - target.offsets).abs().mean()
        known = target.classes.flatten() != IGNORE_INDEX
        for place, name in ((-2, "road"), (-1, "end")):
            found, wanted = outputs[known][:, place] > 0, target.roads.flatten(0, 1)[known][:, place] > 0
            rights[name] = found[found | wanted] & wanted[found | wanted]  # IoU of the cells
        return " ".join(f"{name} {r.float().mean():.3f}" for name, r in rights.items()) + f" sides off by {error:.3f}"

    @torch.no_grad()
    def find(self, features: Tensor) -> list[Found]:
        """Label and box of every object found in image tokens (B, C, width), per image."""
        classes, offsets, *_ = self(features).split(_SPLIT, dim=-1)
        side = round(features.shape[1] ** 0.5)
        boxes = offsets / side + cell_middles(side).repeat(1, 2)
        found: list[list[tuple[str, list[float]]]] = [[] for _ in features]
        for image, cell in (classes.argmax(-1) > 0).nonzero().tolist():
            label = LABELS[int(classes[image, cell].argmax()) - 1]
            found[image].append((label, (boxes[image, cell] * 1000).tolist()))
        return [*found]


@torch.no_grad()
def write_positions(tower: Any) -> None:
    """Replace the tower's learned position embeddings, (side², width), by sines of both axes of standard deviation 1.

    Training hardly grew them: 0.03 beside 2.4 of the patches, so that a token could not tell in which cell it lies.
    """
    embedding = tower.pos_embed.weight
    count, width = embedding.shape
    places = cell_middles(round(count**0.5)) * count**0.5  # in patches
    waves = torch.logspace(math.log10(math.pi / 32), math.log10(math.pi / 2), width // 4)  # per patch
    phases = (places[:, :, None] * waves).flatten(1)
    embedding.copy_(2**0.5 * torch.cat([phases.sin(), phases.cos()], dim=1))


class Pictures(Dataset[tuple[Tensor, DenseTarget]]):
    """The batch of each step, the same in any process: pictures (B, s, s, 3) uint8, turned at random, their target."""

    def __init__(self, gallery: Sequence[Exhibit], steps: int, seed: int) -> None:
        self._gallery, self._steps, self._seed = gallery, steps, seed

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> tuple[Tensor, DenseTarget]:
        rng = np.random.default_rng((self._seed, 4, step))
        drawn = rng.integers(len(self._gallery), size=BATCH_SIZE)
        exhibits = [self._gallery[number].turned(int(rng.integers(8))) for number in drawn]
        pixels = torch.from_numpy(np.stack([x.pixels for x in exhibits]))
        return pixels, dense_target([x.plan for x in exhibits], round(IMAGE_TOKENS**0.5))


def train_tower(model: Any, head: DenseHead, gallery: Sequence[Exhibit], steps: int, seed: int, loop: Loop) -> None:
    """Train the vision tower of the VLM, and the head, in place, on their own device."""
    visual, device = model.model.visual, model.device
    write_positions(visual)
    tower = Tower(visual, IMAGE_SIZE)

    def loss_of(step: int, batch: tuple[Tensor, DenseTarget]) -> Tensor:
        pixels, target = batch
        tokens, target = tower(pixels.to(device)), moved(target, device)
        loss = head.loss(tokens, target)
        if step % 50 == 0 or step == steps - 1:
            say(f"tower step {step}/{steps} loss {loss.item():.3f} {head.report(tokens, target)}")
        return loss

    loop.fit("tower", visual, Pictures(gallery, steps, seed), loss_of, LEARNING_RATE, helpers=[head])
