"""Pretraining of the demo's SAM with point and box prompts, as in SAM: one mask per prompt, and its predicted IoU."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from satlisa.data.synthetic.plan import SceneObject
from satlisa.demo.collages import recoloured
from satlisa.demo.fit import Loop, moved, say
from satlisa.demo.gallery import Exhibit, ScenePool
from satlisa.demo.tensors import sam_pixels
from satlisa.demo.tiny_models import IMAGE_SIZE
from satlisa.geometry.raster import rasterize
from satlisa.model.losses import bce_loss, dice_loss, mask_iou

LEARNING_RATE = 1.5e-3
BATCH_SIZE = 8
PROMPTS_PER_IMAGE = 4
_PADDING_POINT = -10  # SAM's label of a padding point
_JITTER = 2.0  # maximum offset of a box prompt's corners, in pixels
KINDS = ("box", "point", "all")  # of prompts; "all": a point on each object of a label
Groups = Sequence[Sequence[Sequence[SceneObject]]]  # per image and prompt, the objects to segment


def draw_mask(things: Sequence[SceneObject], size: int) -> np.ndarray:
    """Union mask of the objects: (size, size) bool."""
    return rasterize([np.array(thing.polygon) / 1000 for thing in things], size, size)


def draw_points(mask: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Random points (count, 2) inside a mask, as (x, y)."""
    rows, columns = np.nonzero(mask)
    places = rng.integers(len(rows), size=count)
    return np.stack([columns[places], rows[places]], axis=1)


def box_prompts(groups: Groups, rng: np.random.Generator) -> dict[str, Tensor]:
    """The boxes of each group's first object: `input_boxes` (B, P, 4) in pixels."""
    return jittered(np.array([[group[0].box for group in of_image] for of_image in groups]) * IMAGE_SIZE / 1000, rng)


def jittered(boxes: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
    """The prompt of boxes (B, P, 4), their corners moved by up to `_JITTER` pixels."""
    return {"input_boxes": torch.tensor(boxes + rng.uniform(-_JITTER, _JITTER, boxes.shape)).float()}


def point_prompts(groups: Groups, rng: np.random.Generator) -> dict[str, Tensor]:
    """One point on every object of a group: `input_points` (B, P, n, 2) and their labels (B, P, n)."""
    most = max(len(group) for of_image in groups for group in of_image)
    points = np.zeros((len(groups), len(groups[0]), most, 2), np.float32)
    labels = np.full(points.shape[:-1], _PADDING_POINT)
    for image, prompt in np.ndindex(labels.shape[:2]):
        for place, thing in enumerate(groups[image][prompt]):
            points[image, prompt, place] = draw_points(draw_mask([thing], IMAGE_SIZE), 1, rng)
            labels[image, prompt, place] = 1
    return {"input_points": torch.from_numpy(points), "input_labels": torch.from_numpy(labels)}


def prompts_of(groups: Groups, kind: str, size: int, rng: np.random.Generator) -> tuple[dict[str, Tensor], Tensor]:
    """Prompts of a kind in `KINDS` for groups of objects, and their masks (B, P, size, size) bool."""
    masks = np.stack([np.stack([draw_mask(group, size) for group in of_image]) for of_image in groups])
    return box_prompts(groups, rng) if kind == "box" else point_prompts(groups, rng), torch.from_numpy(masks)


def _draw_groups(exhibits: Sequence[Exhibit], kind: str, rng: np.random.Generator) -> Groups:
    """For "all", the objects of one label of each image; else single objects, drawn with replacement."""
    if kind == "all":
        return [[_same_label(exhibit, rng)] for exhibit in exhibits]
    drawn = [(x.plan.objects, rng.choice(len(x.plan.objects), PROMPTS_PER_IMAGE)) for x in exhibits]
    return [[[objects[i]] for i in picks] for objects, picks in drawn]


def _same_label(exhibit: Exhibit, rng: np.random.Generator) -> list[SceneObject]:
    """All objects with the label of a random one: the buildings or the planes of a scene."""
    objects = exhibit.plan.objects
    label = objects[rng.integers(len(objects))].label
    return [thing for thing in objects if thing.label == label]


def prompt_loss(logits: Tensor, targets: Tensor, scores: Tensor, weights: Tensor | None = None) -> Tensor:
    """2·BCE + DICE of logits and targets (B, P, m, m), plus the squared error of the predicted IoU (B, P).

    `weights` (B, P, m, m): optional weights of the pixels in BCE.
    """
    ones = torch.ones_like(targets)
    bce = bce_loss(logits, targets, ones if weights is None else weights).mean()
    dice = dice_loss(logits, targets, ones, eps=1.0).mean()
    return 2 * bce + dice + F.mse_loss(scores, mask_iou(logits.detach() > 0, targets > 0))


class SceneLessons(Dataset[tuple[Tensor, dict[str, Tensor], Tensor]]):
    """The batch of each step, the same in any process.

    Pixels (B, s, s, 3) uint8, half of the pictures recoloured; prompts of a kind; their masks (B, P, s/2, s/2) bool.
    """

    def __init__(self, gallery: Sequence[Exhibit], steps: int, seed: int) -> None:
        self._scenes = ScenePool(gallery)
        self._steps, self._seed = steps, seed

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        rng = np.random.default_rng((self._seed, 1, step))
        exhibits = self._scenes.draw(BATCH_SIZE, rng)
        kind = KINDS[step % 3]
        prompts, masks = prompts_of(_draw_groups(exhibits, kind, rng), kind, IMAGE_SIZE // 2, rng)
        pixels = np.stack([recoloured(x.pixels, rng) if rng.random() < 0.5 else x.pixels for x in exhibits])
        return torch.from_numpy(pixels), prompts, masks


def train_sam(model: Any, gallery: Sequence[Exhibit], steps: int, seed: int, loop: Loop) -> None:
    """Train all of SAM in place, on its own device."""

    def loss_of(step: int, batch: tuple[Tensor, dict[str, Tensor], Tensor]) -> Tensor:
        pixels, prompts, masks = moved(batch, model.device)
        targets = masks.float()
        output = model(pixel_values=sam_pixels(pixels), multimask_output=False, **prompts)
        loss = prompt_loss(output.pred_masks[:, :, 0], targets, output.iou_scores[:, :, 0])
        if step % 30 < 3 or step == steps - 1:
            iou = float(mask_iou(output.pred_masks[:, :, 0] > 0, targets > 0).mean())
            say(f"sam, stage 1, step {step}/{steps} {KINDS[step % 3]} loss {loss.item():.3f} IoU {iou:.3f}")
        return loss

    loop.fit("sam, stage 1", model, SceneLessons(gallery, steps, seed), loss_of, LEARNING_RATE)


@torch.no_grad()
def score_sam(model: Any, processor: Any, gallery: Sequence[Exhibit]) -> dict[str, float]:
    """Mean IoU per kind of prompt at original image size."""
    model.eval()
    scores = {}
    gallery = [exhibit for exhibit in gallery if exhibit.plan.objects]
    for kind in KINDS:
        rng = np.random.default_rng(0)
        values = []
        for exhibit in gallery:
            groups = [_same_label(exhibit, rng)] if kind == "all" else [[thing] for thing in exhibit.plan.objects]
            prompts, targets = prompts_of([groups], kind, IMAGE_SIZE, rng)
            pixels = processor(images=[exhibit.image], return_tensors="pt")["pixel_values"]
            logits = model(pixel_values=pixels, multimask_output=False, **prompts).pred_masks[0, :, 0]
            logits = F.interpolate(logits[None], targets.shape[-2:], mode="bilinear", align_corners=False)[0]
            values += mask_iou(logits > 0, targets[0]).tolist()
        scores[f"IoU, {kind} prompt"] = float(np.mean(values))
    return scores
