"""A stage before the VLM's pretraining: its vision tower learns where things are, from a dense target.

A linear head on the image tokens, discarded afterwards, tells for each whether the centre of an object lies in it, and
of that object the class, the box, the digits of the box in text, and its number in reading order. Next-token loss alone
teaches places last: each answer has few digits, and each digit tells little about the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satlisa.data.synthetic.plan import SceneObject
from satlisa.demo.boxes import Found, box_recall
from satlisa.demo.fit import fit, say
from satlisa.demo.gallery import Exhibit

LEARNING_RATE = 1e-3
BATCH_SIZE = 32
LABELS = ("building", "plane")
_MOST_OBJECTS = 8  # of a scene
_HUNDREDS, _TENS = 11, 10  # digits of a side, 0 to 1000 in tens
_SPLIT = (1 + len(LABELS), 4, 4 * _HUNDREDS, 4 * _TENS, _MOST_OBJECTS)


@dataclass(frozen=True)
class DenseTarget:
    """What the head has to tell about B images of C cells, of which K hold an object's centre.

    Attributes:
        classes: (B, C) int64; 0: no centre, else 1 + the index in `LABELS`.
        held: (K,) int64, which of the B·C cells hold a centre.
        boxes: (K, 4) float32, (left, top, right, bottom) as fractions.
        middles: (C, 2) float32, of every cell, (x, y) as fractions.
        numbers: (K,) int64, from 0, in reading order.
    """

    classes: Tensor
    held: Tensor
    boxes: Tensor
    numbers: Tensor
    middles: Tensor

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


def dense_target(scenes: Sequence[Sequence[SceneObject]], side: int) -> DenseTarget:
    """The target for the objects of images, in reading order, with `side`² image tokens each."""
    classes = torch.zeros(len(scenes), side * side, dtype=torch.int64)
    cells: dict[int, tuple[int, SceneObject]] = {}
    for image, things in enumerate(scenes):
        for number, thing in enumerate(things[:_MOST_OBJECTS]):
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
    )


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
        classes, offsets, hundreds, tens, numbers = self(features).flatten(0, 1).split(_SPLIT, dim=-1)
        loss = 4 * F.cross_entropy(classes, target.classes.flatten())
        if not len(target.held):
            return loss
        digits = target.tens
        loss = loss + 4 * F.smooth_l1_loss(offsets[target.held], target.offsets, beta=0.1)
        for logits, wanted in ((hundreds, digits // 10), (tens, digits % 10)):
            loss = loss + 0.5 * F.cross_entropy(logits[target.held].unflatten(1, (4, -1)).mT, wanted)
        return loss + 0.5 * F.cross_entropy(numbers[target.held], target.numbers)

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


def image_tokens(model: Any, processor: Any, exhibits: Sequence[Exhibit]) -> Tensor:
    """The vision tower's output (B, C, width) for images of one size."""
    features = processor.image_processor(images=[x.image for x in exhibits], return_tensors="pt")
    output = model.model.visual(features["pixel_values"], grid_thw=features["image_grid_thw"])
    tokens: Tensor = output.pooler_output.unflatten(0, (len(exhibits), -1))
    return tokens


@torch.no_grad()
def write_positions(tower: Any) -> None:
    """Replace the tower's learned position embeddings, (side², width), by sines of both axes of standard deviation 1.

    Training hardly grew them: 0.03 beside 2.4 of the patches, so that a token could not tell in which cell it lies.
    """
    embedding = tower.pos_embed.weight
    count, width = embedding.shape
    places = cell_middles(round(count**0.5)) * count**0.5  # in patches
    waves = torch.logspace(np.log10(np.pi / 32), np.log10(np.pi / 2), width // 4)  # per patch
    phases = (places[:, :, None] * waves).flatten(1)
    embedding.copy_(2**0.5 * torch.cat([phases.sin(), phases.cos()], dim=1))


def train_tower(model: Any, head: DenseHead, processor: Any, gallery: Sequence[Exhibit], steps: int, seed: int) -> None:
    """Train the vision tower of the VLM, and the head, in place."""
    rng = np.random.default_rng((seed, 4))
    write_positions(model.model.visual)

    def loss_of(step: int) -> Tensor:
        exhibits = [gallery[i].turned(int(rng.integers(8))) for i in rng.integers(len(gallery), size=BATCH_SIZE)]
        tokens = image_tokens(model, processor, exhibits)
        target = dense_target([x.plan.objects for x in exhibits], round(tokens.shape[1] ** 0.5))
        loss = head.loss(tokens, target)
        if step % 20 == 0 or step == steps - 1:
            recall = box_recall(head.find(tokens), exhibits)
            say(f"tower step {step}/{steps} loss {loss.item():.3f} boxes with IoU 0.5 {recall:.3f}")
        return loss

    fit(model.model.visual, loss_of, steps, LEARNING_RATE, helpers=[head])
