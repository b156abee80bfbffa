"""Second stage of SAM's pretraining: half scenes, half collages, with an auxiliary pixel reconstruction loss.

SAM's encoder is initialized from a masked autoencoder, so it represents images of any kind. Here a linear layer,
discarded afterwards, reconstructs each cell's pixels from its embedding. This keeps colours and textures in the
embedding that the scenes alone do not require.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satlisa.data.synthetic.terrain import SIDE
from satlisa.demo import pretrain_sam
from satlisa.demo.collages import Collage
from satlisa.demo.fit import fit, say
from satlisa.demo.gallery import Exhibit, turn_array
from satlisa.model.losses import mask_iou

LEARNING_RATE = 7e-4
REBUILD_WEIGHT = 2.0
CELL = 8  # pixels of a cell of the embedding
_POINTS = 8  # points per prompt for a surface
_LEAST = 100  # minimum pixels of a shape used as a target; one cell of the embedding has 64


def as_collage(exhibit: Exhibit) -> Collage:
    """A scene as a collage: objects become shapes 1, 2, …, labels become surfaces 1, 2, …; 0 is background."""
    shapes = np.zeros((SIDE, SIDE), np.uint8)
    surfaces = np.zeros_like(shapes)
    labels = sorted({thing.label for thing in exhibit.plan.objects})
    for number, thing in enumerate(exhibit.plan.objects, start=1):
        mask = pretrain_sam.draw_mask([thing], SIDE)
        shapes[mask], surfaces[mask] = number, 1 + labels.index(thing.label)
    return Collage(exhibit.pixels, shapes, surfaces)


def turned(picture: Collage, number: int) -> Collage:
    """One of the eight rotations and reflections, numbered as in `Exhibit.turned`."""
    return Collage(*(turn_array(a, number) for a in (picture.pixels, picture.shapes, picture.surfaces)))


def make_prompts(
    pictures: Sequence[Collage], lowest: Sequence[int], kind: str, rng: np.random.Generator
) -> tuple[dict[str, Tensor], Tensor]:
    """Prompts of a kind ("box" or "point" on a shape, or "all": points on a surface) and targets (B, P, m, m).

    Shapes and surfaces numbered below `lowest` are never targets.
    """
    chosen = [_choose(picture, low, kind, rng) for picture, low in zip(pictures, lowest, strict=True)]
    masks = np.stack([np.stack(of_picture) for of_picture in chosen])  # (B, P, SIDE, SIDE)
    targets = halved(masks).float()
    if kind == "box":
        boxes = np.array([[box_of(mask) for mask in of_picture] for of_picture in masks])
        return pretrain_sam.jittered(boxes, rng), targets
    count = _POINTS if kind == "all" else 1
    drawn = [[pretrain_sam.draw_points(mask, count, rng) for mask in of_picture] for of_picture in masks]
    points = torch.tensor(np.array(drawn))
    return {"input_points": points.float(), "input_labels": torch.ones(points.shape[:-1], dtype=torch.int64)}, targets


def _choose(picture: Collage, lowest: int, kind: str, rng: np.random.Generator) -> list[np.ndarray]:
    numbers = picture.surfaces if kind == "all" else picture.shapes
    found, counts = np.unique(numbers, return_counts=True)
    found = found[(counts >= _LEAST) & (found >= lowest)]
    return [numbers == rng.choice(found) for _ in range(1 if kind == "all" else pretrain_sam.PROMPTS_PER_IMAGE)]


def halved(masks: np.ndarray) -> Tensor:
    """Masks (…, SIDE, SIDE) at half resolution, (…, SIDE / 2, SIDE / 2) bool: pixels half covered or more."""
    half = SIDE // 2
    return torch.from_numpy(masks.reshape(*masks.shape[:-2], half, 2, half, 2).mean((-3, -1)) >= 0.5)


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) of a mask, in pixels."""
    rows, columns = np.nonzero(mask)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def rare_pixel_weights(targets: Tensor) -> Tensor:
    """BCE weights (B, P, m, m): object pixels are weighted by the square root of 0.5 / their share.

    Shapes are small, so without weights an empty mask would be nearly right.
    """
    share = targets.mean((-2, -1), keepdim=True).clamp(min=1e-4)
    return torch.where(targets > 0, (0.5 / share).sqrt(), 1.0)


def rebuild_layer(width: int) -> nn.Conv2d:
    """Reconstructs from an embedding (B, width, s/8, s/8) the pixels of each cell at half resolution."""
    return nn.Conv2d(width, 3 * (CELL // 2) ** 2, 1)


def rebuild_loss(rebuilt: Tensor, pixel_values: Tensor) -> Tensor:
    """Mean squared error of reconstructions (B, 48, s/8, s/8) against the pixels (B, 3, s, s) at half size."""
    return F.mse_loss(rebuilt, F.pixel_unshuffle(F.avg_pool2d(pixel_values, 2), CELL // 2))


def broaden_sam(
    model: Any,
    processor: Any,
    gallery: Sequence[Exhibit],
    collages: Sequence[Collage],
    steps: int,
    seed: int,
) -> None:
    """Train all of SAM in place; half of each batch is collages."""
    rng = np.random.default_rng((seed, 3))
    scenes = [as_collage(exhibit) for exhibit in gallery if exhibit.plan.objects]
    rebuild = rebuild_layer(model.config.vision_config.output_channels)
    half = pretrain_sam.BATCH_SIZE // 2

    def loss_of(step: int) -> Tensor:
        drawn = [collages[i] for i in rng.integers(len(collages), size=half)]
        drawn += [scenes[i] for i in rng.integers(len(scenes), size=half)]
        pictures = [turned(picture, int(rng.integers(8))) for picture in drawn]
        kind = pretrain_sam.KINDS[step % 3]
        prompts, targets = make_prompts(pictures, [0] * half + [1] * half, kind, rng)
        pixels = processor(images=[picture.pixels for picture in pictures], return_tensors="pt")["pixel_values"]
        embeddings = model.vision_encoder(pixels)[0]
        output = model(image_embeddings=embeddings, multimask_output=False, **prompts)
        scores, weights = output.iou_scores[:, :, 0], rare_pixel_weights(targets)
        loss = pretrain_sam.prompt_loss(output.pred_masks[:, :, 0], targets, scores, weights)
        rebuilt = rebuild_loss(rebuild(embeddings), pixels)
        if step % 30 < 3 or step == steps - 1:
            iou = mask_iou(output.pred_masks[:, :, 0] > 0, targets > 0).mean(1)
            say(
                f"sam, stage 2, step {step}/{steps} {kind} loss {loss.item():.3f} rebuilt {rebuilt.item():.3f} "
                f"IoU {iou[half:].mean():.3f} in scenes, {iou[:half].mean():.3f} in collages"
            )
        return loss + REBUILD_WEIGHT * rebuilt

    fit(model, loss_of, steps, LEARNING_RATE, helpers=[rebuild])
