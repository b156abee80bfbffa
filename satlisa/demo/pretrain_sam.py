"""Pretraining of the demo's SAM with point and box prompts, as in SAM: one mask per prompt, and its predicted IoU."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from satlisa.data.synthetic.plan import SceneObject
from satlisa.demo.gallery import Exhibit
from satlisa.demo.tiny_models import IMAGE_SIZE
from satlisa.geometry.raster import rasterize
from satlisa.model.losses import bce_loss, dice_loss, mask_iou

LEARNING_RATE = 1.5e-3
BATCH_SIZE = 8
PROMPTS_PER_IMAGE = 4
_PADDING_POINT = -10  # SAM's label of a padding point
JITTER = 2.0  # maximum offset of a box prompt's corners, in pixels


def draw_mask(things: Sequence[SceneObject], size: int) -> np.ndarray:
    """Union mask of the objects: (size, size) bool."""
    return rasterize([np.array(thing.polygon) / 1000 for thing in things], size, size)


def point_in(thing: SceneObject, rng: np.random.Generator) -> np.ndarray:
    """A random point (x, y) inside an object, in pixels of SAM's input."""
    rows, columns = np.nonzero(draw_mask([thing], IMAGE_SIZE))
    place = rng.integers(len(rows))
    return np.array([columns[place], rows[place]], np.float32)


def box_prompts(chosen: Sequence[Sequence[SceneObject]], rng: np.random.Generator) -> dict[str, Tensor]:
    """The objects' boxes with jitter: `input_boxes` (B, P, 4) in pixels."""
    boxes = np.array([[thing.box for thing in things] for things in chosen]) * IMAGE_SIZE / 1000
    return {"input_boxes": torch.tensor(boxes + rng.uniform(-JITTER, JITTER, boxes.shape)).float()}


def point_prompts(groups: Sequence[Sequence[Sequence[SceneObject]]], rng: np.random.Generator) -> dict[str, Tensor]:
    """One point on every object of a group: `input_points` (B, P, n, 2) and their labels (B, P, n)."""
    most = max(len(group) for groups_of_image in groups for group in groups_of_image)
    points = np.zeros((len(groups), len(groups[0]), most, 2), np.float32)
    labels = np.full(points.shape[:-1], _PADDING_POINT)
    for image, groups_of_image in enumerate(groups):
        for prompt, group in enumerate(groups_of_image):
            for place, thing in enumerate(group):
                points[image, prompt, place] = point_in(thing, rng)
                labels[image, prompt, place] = 1
    return {"input_points": torch.from_numpy(points), "input_labels": torch.from_numpy(labels)}


def make_prompts(exhibits: Sequence[Exhibit], rng: np.random.Generator, kind: str) -> tuple[dict[str, Tensor], Tensor]:
    """Prompts of a kind ("box", "point", or "all": a point on each object of a label) and targets (B, P, m, m)."""
    if kind == "all":
        groups = [[_same_label(exhibit, rng)] for exhibit in exhibits]
    else:
        chosen = [rng.choice(len(x.plan.objects), PROMPTS_PER_IMAGE) for x in exhibits]
        groups = [[[x.plan.objects[i]] for i in picks] for x, picks in zip(exhibits, chosen, strict=True)]
    masks = np.stack([np.stack([draw_mask(group, IMAGE_SIZE // 2) for group in of_image]) for of_image in groups])
    boxes = [[group[0] for group in of_image] for of_image in groups]
    prompts = box_prompts(boxes, rng) if kind == "box" else point_prompts(groups, rng)
    return prompts, torch.from_numpy(masks).float()


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


def train_sam(
    model: Any, processor: Any, gallery: Sequence[Exhibit], steps: int, seed: int, say: Callable[[str], None]
) -> None:
    """Train all of SAM in place: AdamW, one-cycle cosine with 5 % warm-up."""
    rng = np.random.default_rng((seed, 2))
    gallery = [exhibit for exhibit in gallery if exhibit.plan.objects]
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.05)
    model.train()
    for step in range(steps):
        exhibits = [gallery[i].turned(int(rng.integers(8))) for i in rng.integers(len(gallery), size=BATCH_SIZE)]
        kind = ("box", "point", "all")[step % 3]
        prompts, targets = make_prompts(exhibits, rng, kind)
        pixels = processor(images=[x.image for x in exhibits], return_tensors="pt")["pixel_values"]
        output = model(pixel_values=pixels, multimask_output=False, **prompts)
        loss = prompt_loss(output.pred_masks[:, :, 0], targets, output.iou_scores[:, :, 0])
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 30 < 3 or step == steps - 1:
            iou = float(mask_iou(output.pred_masks[:, :, 0] > 0, targets > 0).mean())
            say(f"sam step {step}/{steps} {kind} loss {loss.item():.3f} IoU {iou:.3f}")


@torch.no_grad()
def score_sam(model: Any, processor: Any, gallery: Sequence[Exhibit]) -> dict[str, float]:
    """Mean IoU per kind of prompt at original image size."""
    model.eval()
    scores = {}
    gallery = [exhibit for exhibit in gallery if exhibit.plan.objects]
    for kind in ("box", "point", "all"):
        rng = np.random.default_rng(0)
        values = []
        for exhibit in gallery:
            (objects, size) = exhibit.plan.objects, IMAGE_SIZE
            groups = [_same_label(exhibit, rng)] if kind == "all" else [[thing] for thing in objects]
            boxes = [group[0] for group in groups]
            prompts = box_prompts([boxes], rng) if kind == "box" else point_prompts([groups], rng)
            pixels = processor(images=[exhibit.image], return_tensors="pt")["pixel_values"]
            logits = model(pixel_values=pixels, multimask_output=False, **prompts).pred_masks[0, :, 0]
            logits = F.interpolate(logits[None], (size, size), mode="bilinear", align_corners=False)[0]
            targets = torch.from_numpy(np.stack([draw_mask(group, size) for group in groups]))
            values += mask_iou(logits > 0, targets).tolist()
        scores[f"IoU, {kind} prompt"] = float(np.mean(values))
    return scores
