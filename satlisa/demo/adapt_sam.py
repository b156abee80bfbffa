"""Second stage of SAM's pretraining: real pictures, dense targets, prompts of one vector for a kind or an object.

The encoder is frozen in fine-tuning, so that what it cannot see, nothing can segment. A linear layer reads from its
embedding which pixels are buildings, planes and edges. `<SEG>` will give SAM one vector, for all of a kind or for one
object: here an embedding makes one of a label, and a small MLP one of a box. All of these are discarded afterwards.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satlisa.demo.chips import Chip
from satlisa.demo.collages import Collage
from satlisa.demo.fit import Loop, moved, say
from satlisa.demo.gallery import Exhibit
from satlisa.demo.place_features import LABELS
from satlisa.demo.pretrain_sam import prompt_loss
from satlisa.demo.sam_lessons import SamBatch, SamLessons
from satlisa.demo.tensors import sam_pixels
from satlisa.model.losses import dice_loss, mask_iou

LEARNING_RATE = 1e-3
BATCH_SIZE = 12
_WEIGHTS = {"box": 0.7, "point": 0.5, "name": 1.0, "place": 1.0}  # of the prompts' losses
_DENSE_WEIGHT = 1.0
_REBUILD_WEIGHT = 2.0
_CELL = 8  # pixels of a cell of the embedding
_PLACE_WIDTH = 256
_DICE_EPS = 20.0  # pixels: a picture may have none of a kind


class Aids(nn.Module):
    """What is trained with SAM and thrown away.

    Prompt vectors of labels and of boxes, and two layers that read the embedding. These give the pixels of a cell at
    half of the input's resolution: colours, and kinds and edges.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(len(LABELS), width)
        self.rebuild = nn.Conv2d(width, 3 * (_CELL // 2) ** 2, 1)
        self.dense = nn.Conv2d(width, (len(LABELS) + 1) * (_CELL // 2) ** 2, 1)
        self.places = nn.Sequential(nn.Linear(4, _PLACE_WIDTH), nn.GELU(), nn.Linear(_PLACE_WIDTH, width))


def predict(model: Any, aids: Aids, batch: SamBatch, embeddings: Tensor) -> dict[str, tuple[Tensor, ...]]:
    """By kind of prompt: logits (·, 1, m, m), the predicted IoU (·, 1) and the masks to predict (·, 1, m, m) bool.

    Args:
        embeddings: (B, C, s/8, s/8) of the batch's pictures.
    """
    labels = torch.ones_like(batch.points[..., 0], dtype=torch.int64)
    own = {
        "box": ({"input_boxes": batch.boxes}, batch.box_masks),
        "point": ({"input_points": batch.points, "input_labels": labels}, batch.point_masks),
    }
    found: dict[str, tuple[Tensor, ...]] = {}
    for kind, (given, masks) in own.items():
        output = model(image_embeddings=embeddings, multimask_output=False, **given)
        found[kind] = output.pred_masks[:, :, 0], output.iou_scores[:, :, 0], masks
    places = aids.places(batch.boxes * (2 / model.config.vision_config.image_size) - 1)
    found["place"] = *vector_masks(model, places, embeddings), batch.box_masks
    named = embeddings[len(embeddings) - len(batch.names) :]
    found["name"] = *vector_masks(model, aids.vectors(batch.names), named), batch.name_masks
    return found


def vector_masks(model: Any, vectors: Tensor, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, 1, m, m) and predicted IoU (B, 1) for a prompt of one vector each, (B, 1, C).

    Args:
        embeddings: (B, C, s/8, s/8).
    """
    logits, scores = model.mask_decoder(
        image_embeddings=embeddings,
        image_positional_embeddings=model.get_image_wide_positional_embeddings().expand(len(vectors), -1, -1, -1),
        sparse_prompt_embeddings=vectors[:, :, None],
        dense_prompt_embeddings=model.prompt_encoder.no_mask_embed.weight[:, :, None, None].expand_as(embeddings),
        multimask_output=False,
    )
    return logits[:, :, 0], scores[:, :, 0]


def dense_loss(predicted: Tensor, batch: SamBatch) -> Tensor:
    """2·BCE + 2·DICE of the kinds, plus BCE of the edges.

    Args:
        predicted: (B, (labels + 1)·16, s/8, s/8), logits of a cell's pixels at half resolution; edges come last.
    """
    logits = F.pixel_shuffle(predicted, _CELL // 2)
    kinds, targets = logits[len(logits) - len(batch.kinds) :, :-1], batch.kinds.float()
    dice = dice_loss(kinds, targets, torch.ones_like(targets), eps=_DICE_EPS).mean()
    edges = F.binary_cross_entropy_with_logits(logits[: len(batch.edges), -1:], batch.edges.float())
    return 2 * F.binary_cross_entropy_with_logits(kinds, targets) + 2 * dice + edges


def rebuild_loss(rebuilt: Tensor, pixel_values: Tensor) -> Tensor:
    """Mean squared error of reconstructions (B, 48, s/8, s/8) against the pixels (B, 3, s, s) at half size."""
    return F.mse_loss(rebuilt, F.pixel_unshuffle(F.avg_pool2d(pixel_values, 2), _CELL // 2))


def rare_pixel_weights(targets: Tensor) -> Tensor:
    """BCE weights (B, P, m, m): object pixels are weighted by the square root of 0.5 / their share.

    Shapes are small, so without weights an empty mask would be nearly right.
    """
    share = targets.mean((-2, -1), keepdim=True).clamp(min=1e-4)
    return torch.where(targets > 0, (0.5 / share).sqrt(), 1.0)


def adapt_sam(
    model: Any,
    gallery: Sequence[Exhibit],
    collages: Sequence[Collage],
    chips: Sequence[Chip],
    steps: int,
    seed: int,
    loop: Loop,
) -> Aids:
    """Train all of SAM in place, on its own device; returns what was trained with it."""
    device = model.device
    torch.manual_seed(seed)
    aids = Aids(model.config.vision_config.output_channels).to(device)
    lessons = SamLessons(gallery, collages, chips, steps, BATCH_SIZE, seed)

    def loss_of(step: int, batch: SamBatch) -> Tensor:
        batch = moved(batch, device)
        pixels = sam_pixels(batch.pixels)
        embeddings = model.vision_encoder(pixels)[0]
        found = predict(model, aids, batch, embeddings)
        dense = dense_loss(aids.dense(embeddings), batch)
        rebuilt = rebuild_loss(aids.rebuild(embeddings), pixels)
        loss = _DENSE_WEIGHT * dense + _REBUILD_WEIGHT * rebuilt
        for kind, (logits, scores, masks) in found.items():
            targets = masks.float()
            loss = loss + _WEIGHTS[kind] * prompt_loss(logits, targets, scores, rare_pixel_weights(targets))
        if step % 50 == 0 or step == steps - 1:
            listed = " ".join(f"{kind} {value:.3f}" for kind, value in _mean_ious(found).items())
            say(
                f"sam, stage 2, step {step}/{steps} loss {loss.item():.3f} dense {dense.item():.3f} "
                f"rebuilt {rebuilt.item():.3f} IoU {listed}"
            )
        return loss

    loop.fit("sam, stage 2", model, lessons, loss_of, LEARNING_RATE, helpers=[aids])
    return aids


def _mean_ious(found: Mapping[str, tuple[Tensor, ...]]) -> dict[str, float]:
    return {kind: float(mask_iou(logits > 0, masks).mean()) for kind, (logits, _, masks) in found.items()}
