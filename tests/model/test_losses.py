"""The loss against formulas written out by hand, after LISA's published code and docs/architecture.md#loss."""

import math

import pytest
import torch
import torch.nn.functional as F

from satlisa.config import ModelConfig
from satlisa.model.losses import LossSums, bce_loss, dice_loss, mask_loss_sums


def test_dice_of_four_pixels_by_hand() -> None:
    logits = torch.tensor([[[math.log(3), 0.0], [-math.log(3), 100.0]]])  # p = 0.75, 0.5, 0.25, 1 (padding)
    target = torch.tensor([[[True, False], [False, True]]])
    valid = torch.tensor([[[True, True], [True, False]]])
    expected = 1 - (2 * 0.75 + 1e-3) / (0.75 + 0.5 + 0.25 + 1 + 1e-3)
    assert dice_loss(logits, target, valid).item() == pytest.approx(expected, rel=1e-6)


def test_bce_of_four_pixels_by_hand() -> None:
    logits = torch.tensor([[[math.log(3), 0.0], [-math.log(3), 100.0]]])
    target = torch.tensor([[[True, False], [False, False]]])
    valid = torch.tensor([[[True, True], [True, False]]])
    expected = (-math.log(0.75) - math.log(0.5) - math.log(0.75)) / 3
    assert bce_loss(logits, target, valid).item() == pytest.approx(expected, rel=1e-6)


def test_equals_lisas_formulas_without_padding() -> None:
    """LISA sums over flattened masks, values divided by scale=1000, eps=1e-6, and divides by the number of masks."""
    torch.manual_seed(0)
    logits, target = torch.randn(5, 16, 16) * 3, torch.rand(5, 16, 16) > 0.7
    p, g = logits.sigmoid().flatten(1), target.float().flatten(1)
    numerator = 2 * (p / 1000 * g).sum(-1)
    denominator = (p / 1000).sum(-1) + (g / 1000).sum(-1)
    dice = (1 - (numerator + 1e-6) / (denominator + 1e-6)).sum()
    bce = F.binary_cross_entropy_with_logits(logits, target.float(), reduction="none").flatten(1).mean(1).sum()
    ours = mask_loss_sums(logits, target, torch.ones_like(target))
    torch.testing.assert_close(ours[0], bce)
    torch.testing.assert_close(ours[1], dice)


def test_padding_does_not_count() -> None:
    torch.manual_seed(1)
    logits, target = torch.randn(2, 8, 8), torch.rand(2, 8, 8) > 0.5
    valid = torch.zeros(2, 8, 8, dtype=torch.bool)
    valid[:, :5] = True
    changed = torch.where(valid, logits, 50.0)
    for loss in (bce_loss, dice_loss):
        torch.testing.assert_close(loss(logits, target, valid), loss(changed, target, valid))


def test_half_precision_masks_are_summed_in_float32() -> None:
    logits = torch.full((1, 256, 256), -1.0, dtype=torch.float16)
    target = torch.ones(1, 256, 256, dtype=torch.bool)
    bce, dice = mask_loss_sums(logits, target, target)
    assert bce.dtype == dice.dtype == torch.float32
    assert bce.item() == pytest.approx(math.log(1 + math.e), rel=1e-4)  # a float16 sum of 65,536 ones is inf


def test_weights_and_counts() -> None:
    sums = LossSums(torch.tensor(8.0), torch.tensor(3.0), torch.tensor(2.0), num_tokens=4, num_masks=1)
    assert sums.total(ModelConfig(), num_tokens=16, num_masks=4).item() == 8 / 16 + 2.0 * 3 / 4 + 0.5 * 2 / 4
    empty = LossSums(torch.tensor(8.0), torch.tensor(0.0), torch.tensor(0.0), num_tokens=4, num_masks=0)
    assert empty.total(ModelConfig(), num_tokens=4, num_masks=0).item() == 2.0
