"""The head's logits and loss against the whole matrix with its `<SEG>` row written in, derived by autograd."""

import math

import pytest
import torch
from torch import Tensor

from satlisa.model import lm_head as head_module
from satlisa.model.lm_head import LMHead
from tests.helpers.model_fixtures import kept_for_backward

SEG = 9


def inputs(tokens: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states (A, 6), matrix (13, 6), `<SEG>` row (6,), targets, `<SEG>` among them; the matrix is frozen."""
    torch.manual_seed(tokens)
    targets = torch.randint(0, 13, (tokens,))
    targets[: tokens // 2 : 2] = SEG
    hidden = torch.randn(tokens, 6).to(dtype).requires_grad_()
    return hidden, torch.randn(13, 6).to(dtype), torch.randn(6).requires_grad_(), targets


def by_hand(hidden: Tensor, weight: Tensor, seg_row: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(logits, loss) with one whole matrix in float64."""
    matrix = torch.cat([weight[:SEG], seg_row[None].to(weight.dtype), weight[SEG + 1 :]]).double()
    logits = hidden.double() @ matrix.T
    return logits, -logits.log_softmax(-1)[torch.arange(len(targets)), targets].sum()


@pytest.mark.parametrize("block", [1, 3 * 13, 2**24])
@pytest.mark.parametrize("tokens", [1, 8])
def test_loss_and_gradients_in_blocks_of_any_size(tokens: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_module, "_BLOCK_LOGITS", block)
    hidden, weight, seg_row, targets = inputs(tokens)
    logits, expected = by_hand(hidden, weight, seg_row, targets)
    head = LMHead(weight, seg_row, SEG)
    torch.testing.assert_close(head.logits(hidden).double(), logits, rtol=1e-5, atol=1e-5)
    loss = head.text_loss_sum(hidden, targets)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)
    ours = torch.autograd.grad(loss * 0.3, (hidden, seg_row))
    theirs = torch.autograd.grad(expected * 0.3, (hidden, seg_row))
    for one, other in zip(ours, theirs, strict=True):
        assert other.abs().max() > 1e-3
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_logits_and_sums_in_float32(dtype: torch.dtype) -> None:
    """As the straight way does it: logits in half precision, their loss in float32, the gradient in both."""
    hidden, weight, seg_row, targets = inputs(40, dtype)
    loss = LMHead(weight, seg_row, SEG).text_loss_sum(hidden, targets)
    logits = LMHead(weight, seg_row, SEG).logits(hidden)
    straight = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
    torch.testing.assert_close(loss, straight)
    ours, theirs = (torch.autograd.grad(x, (hidden, seg_row)) for x in (loss, straight))
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-2)


def test_small_probabilities_survive_float16() -> None:
    """2,000 words of probability 2e-8 each, which float16 rounds to zero, pull at a hidden state together."""
    weight = torch.zeros(2001, 4, dtype=torch.float16)
    weight[0, 0], weight[1:, 1] = 17.6, 1.0
    hidden = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float16).requires_grad_()
    loss = LMHead(weight, torch.zeros(4), 5).text_loss_sum(hidden, torch.tensor([0]))
    (gradient,) = torch.autograd.grad(loss, hidden)
    assert gradient[0, 1].item() == pytest.approx(1999 * math.exp(-17.59375), rel=1e-2)


def test_nothing_of_the_vocabularys_size_is_kept() -> None:
    hidden, weight, seg_row, targets = inputs(8)
    with kept_for_backward() as kept:
        loss = LMHead(weight, seg_row, SEG).text_loss_sum(hidden, targets)
    assert sum(x.numel() for x in kept) == hidden.numel() + seg_row.numel()
    assert all(torch.isfinite(x).all() for x in torch.autograd.grad(loss, (hidden, seg_row)))


def test_without_tokens_gradients_are_there_and_zero() -> None:
    """DDP waits for the gradient of each parameter."""
    hidden, weight, seg_row, targets = inputs(8)
    nothing = LMHead(weight, seg_row, SEG).text_loss_sum(hidden[:0], targets[:0])
    assert nothing.item() == 0
    assert all((x == 0).all() for x in torch.autograd.grad(nothing, (hidden, seg_row)))


def test_no_gradient_is_computed_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, seg_row, targets = inputs(8)
    expected = LMHead(weight, seg_row, SEG).text_loss_sum(hidden, targets)
    monkeypatch.setattr(head_module, "_head_gradients", lambda *_: pytest.fail("a gradient"))
    with torch.no_grad():
        assert torch.equal(LMHead(weight, seg_row, SEG).text_loss_sum(hidden, targets), expected)
