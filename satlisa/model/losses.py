"""The training loss (docs/architecture.md#loss) as sums: L = L_text + L_mask, L_mask = 2.0·BCE + 0.5·DICE.

Each term is summed here and divided once, by the counts of the *effective* batch (all accumulation steps, all
processes). The gradient then does not depend on how samples are split into batches; a mean of means would.
"""

from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from satlisa.config import ModelConfig

# LISA divides the values by 1000 and uses eps 1e-6: equal to this eps on the values themselves.
DICE_EPS = 1e-3


@dataclass
class LossSums:
    """Summed losses of one batch, with the counts that normalize them.

    `text`, `bce` and `dice` are float32 scalars with gradient; `num_tokens` and `num_masks` count what was summed
    (`num_masks` rows with masks, where each row has the same say).
    """

    text: Tensor
    bce: Tensor
    dice: Tensor
    num_tokens: int
    num_masks: int

    def total(self, config: ModelConfig, num_tokens: float, num_masks: float) -> Tensor:
        """This batch's share of L, normalized by the counts of the effective batch."""
        return weigh(config, *self.means(num_tokens, num_masks))

    def means(self, num_tokens: float, num_masks: float) -> tuple[Tensor, Tensor, Tensor]:
        """L_text, BCE and DICE, each over the given count; no tokens or no masks give 0."""
        return loss_means(self.text, self.bce, self.dice, num_tokens, num_masks)


Number = TypeVar("Number", float, Tensor)


def loss_means(
    text: Number, bce: Number, dice: Number, num_tokens: float, num_masks: float
) -> tuple[Number, Number, Number]:
    """Means of summed losses, over tokens and over masks; no tokens or no masks give 0."""
    return text / max(num_tokens, 1), bce / max(num_masks, 1), dice / max(num_masks, 1)


def weigh(config: ModelConfig, text: Number, bce: Number, dice: Number) -> Number:
    """L = L_text + 2.0·BCE + 0.5·DICE, the weights from the configuration."""
    return config.text_loss_weight * text + config.bce_loss_weight * bce + config.dice_loss_weight * dice


def bce_loss(mask_logits: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Mean binary cross entropy per mask over its valid pixels, or weighted by `valid`. All (..., h, w) → (...)."""
    per_pixel = F.binary_cross_entropy_with_logits(mask_logits.float(), targets.float(), reduction="none")
    return (per_pixel * valid).sum((-2, -1)) / valid.sum((-2, -1))


def dice_loss(mask_logits: Tensor, targets: Tensor, valid: Tensor, eps: float = DICE_EPS) -> Tensor:
    """1 - (2Σpg + ε)/(Σp + Σg + ε) per mask over its valid pixels. All (..., h, w) → (...)."""
    p = mask_logits.float().sigmoid() * valid
    g = targets.float() * valid
    overlap = 2 * (p * g).sum((-2, -1)) + eps
    return 1 - overlap / (p.sum((-2, -1)) + g.sum((-2, -1)) + eps)


def mask_loss_sums(
    mask_logits: Tensor, targets: Tensor, valid: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """BCE and DICE summed over masks, in float32 even inside autocast: float16 sums of 65,536 pixels overflow.

    `weights` (N,): what each mask counts; 1 by default.
    """
    with torch.autocast(mask_logits.device.type, enabled=False):
        bce, dice = bce_loss(mask_logits, targets, valid), dice_loss(mask_logits, targets, valid)
        if weights is not None:
            bce, dice = bce * weights, dice * weights
        return bce.sum(), dice.sum()


def mask_iou(predicted: Tensor, truth: Tensor, valid: Tensor | None = None) -> Tensor:
    """IoU of masks over their valid pixels, 1 if both are empty. All (..., m, m) bool; returns (...) float32."""
    shared, either = predicted & truth, predicted | truth
    if valid is not None:
        shared, either = shared & valid, either & valid
    union = either.sum((-2, -1))
    return torch.where(union > 0, shared.sum((-2, -1)) / union.clamp(min=1), 1.0)
