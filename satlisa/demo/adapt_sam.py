"""Third stage of SAM's pretraining: real pictures beside scenes and collages, and prompts that name a kind of object.

`<SEG>` will give SAM one vector for all of a kind. Here an embedding makes one of a label, discarded afterwards.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from satlisa.demo.broaden_sam import REBUILD_WEIGHT, rare_pixel_weights, rebuild_loss
from satlisa.demo.chips import Chip
from satlisa.demo.collages import Collage
from satlisa.demo.fit import fit, load, moved, say
from satlisa.demo.gallery import Exhibit
from satlisa.demo.place_features import LABELS
from satlisa.demo.pretrain_sam import prompt_loss
from satlisa.demo.sam_lessons import SamBatch, SamLessons
from satlisa.demo.tensors import sam_pixels
from satlisa.model.losses import mask_iou

LEARNING_RATE = 7e-4
BATCH_SIZE = 6
_WEIGHTS = {"box": 0.3, "point": 0.3, "name": 1.0}  # of the prompts' losses
_CELL = 8  # pixels of a cell of the embedding


class Names(nn.Module):
    """A prompt vector per label, and the reconstruction of pixels: what is thrown away afterwards."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(len(LABELS), width)
        self.rebuild = nn.Conv2d(width, 3 * (_CELL // 2) ** 2, 1)


def predict(model: Any, names: Names, batch: SamBatch, embeddings: Tensor) -> dict[str, tuple[Tensor, ...]]:
    """By kind of prompt: logits (·, 1, m, m), the predicted IoU (·, 1) and the masks to predict (·, 1, m, m) bool."""
    labels = torch.ones_like(batch.points[..., 0], dtype=torch.int64)
    own = {
        "box": ({"input_boxes": batch.boxes}, batch.box_masks),
        "point": ({"input_points": batch.points, "input_labels": labels}, batch.point_masks),
    }
    found: dict[str, tuple[Tensor, ...]] = {}
    for kind, (given, masks) in own.items():
        output = model(image_embeddings=embeddings, multimask_output=False, **given)
        found[kind] = output.pred_masks[:, :, 0], output.iou_scores[:, :, 0], masks
    named = embeddings[len(embeddings) - len(batch.names) :]
    logits, scores = model.mask_decoder(
        image_embeddings=named,
        image_positional_embeddings=model.get_image_wide_positional_embeddings().expand(len(named), -1, -1, -1),
        sparse_prompt_embeddings=names.vectors(batch.names)[:, :, None],
        dense_prompt_embeddings=model.prompt_encoder.no_mask_embed.weight[:, :, None, None].expand_as(named),
        multimask_output=False,
    )
    found["name"] = logits[:, :, 0], scores[:, :, 0], batch.name_masks
    return found


def adapt_sam(
    model: Any,
    gallery: Sequence[Exhibit],
    collages: Sequence[Collage],
    chips: Sequence[Chip],
    steps: int,
    seed: int,
    workers: int = 0,
) -> Names:
    """Train all of SAM in place, on its own device; returns the names that were trained with it."""
    device = model.device
    torch.manual_seed(seed)
    names = Names(model.config.vision_config.output_channels).to(device)
    batches = load(SamLessons(gallery, collages, chips, steps, BATCH_SIZE, seed), workers)

    def loss_of(step: int) -> Tensor:
        batch = moved(next(batches), device)
        pixels = sam_pixels(batch.pixels)
        embeddings = model.vision_encoder(pixels)[0]
        found = predict(model, names, batch, embeddings)
        rebuilt = rebuild_loss(names.rebuild(embeddings), pixels)
        loss = REBUILD_WEIGHT * rebuilt
        for kind, (logits, scores, masks) in found.items():
            targets = masks.float()
            loss = loss + _WEIGHTS[kind] * prompt_loss(logits, targets, scores, rare_pixel_weights(targets))
        if step % 50 == 0 or step == steps - 1:
            ious = _mean_ious(found)
            listed = " ".join(f"{kind} {value:.3f}" for kind, value in ious.items())
            say(f"sam, stage 3, step {step}/{steps} loss {loss.item():.3f} rebuilt {rebuilt.item():.3f} IoU {listed}")
        return loss

    fit(model, loss_of, steps, LEARNING_RATE, helpers=[names])
    return names


def _mean_ious(found: Mapping[str, tuple[Tensor, ...]]) -> dict[str, float]:
    return {kind: float(mask_iou(logits > 0, masks).mean()) for kind, (logits, _, masks) in found.items()}
