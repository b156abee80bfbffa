"""LM head and text loss: the frozen tied embedding with the trained `<SEG>` row substituted.

With V = 248,320 logits per token, autograd would keep gigabytes of logits for long answers. The matrix is frozen, so
only the hidden states and the `<SEG>` row need gradients. Both are computed in the forward pass, a block of tokens at a
time, and no logits are kept.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_BLOCK_LOGITS = 2**24  # logits per block of tokens: 64 MB in float32
# Scales probabilities so that small ones do not underflow in float16; products with the matrix stay far below 65,504.
_HALF_SCALE = 1024.0


class LMHead(NamedTuple):
    """`weight` (V, D), frozen; `seg_row` (D,), trained, replaces row `seg_token_id`."""

    weight: Tensor
    seg_row: Tensor
    seg_token_id: int

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (A, D) → logits (A, V)."""
        logits = F.linear(hidden, self.weight)
        logits[:, self.seg_token_id] = (hidden @ self.seg_row.to(hidden.dtype)).to(logits.dtype)
        return logits

    def text_loss_sum(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy of hidden states (A, D) with target tokens (A,), summed in float32."""
        loss: Tensor = _TextLoss.apply(hidden, self.seg_row, self, targets, torch.is_grad_enabled())
        return loss


class _TextLoss(torch.autograd.Function):
    """(hidden states, `<SEG>` row) → loss; the forward pass also computes their gradients."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, seg_row: Tensor, head: LMHead, targets: Tensor, with_gradient: bool
    ) -> Tensor:
        loss = torch.zeros((), device=hidden.device)
        hidden_grad, row_grad = (torch.zeros_like(x, dtype=torch.float32) for x in (hidden, seg_row))
        size = max(1, _BLOCK_LOGITS // len(head.weight))
        for start in range(0, len(hidden), size):
            own = slice(start, start + size)
            logits = head.logits(hidden[own])
            dtype, logits, places = logits.dtype, logits.float(), targets[own, None]
            log_sums = logits.logsumexp(-1, keepdim=True)
            loss += (log_sums - logits.gather(1, places)).sum()
            if with_gradient:
                grad = logits.sub_(log_sums).exp_()  # the probabilities
                grad.scatter_add_(1, places, torch.full_like(log_sums, -1))
                hidden_grad[own], own_row_grad = _head_gradients(head, hidden[own], grad, dtype)
                row_grad += own_row_grad
        if with_gradient:
            ctx.dtypes = hidden.dtype, seg_row.dtype
            ctx.save_for_backward(hidden_grad, row_grad)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        of_hidden, of_row = (
            (grad * grad_loss).to(dtype) for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return of_hidden, of_row, None, None, None


def _head_gradients(head: LMHead, hidden: Tensor, grad: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Gradients of hidden states (A, D) and `<SEG>` row (D,), given `grad` (A, V) of the logits, float32.

    `grad` is overwritten. Products are computed in `dtype`.
    """
    scale = _HALF_SCALE if dtype == torch.float16 else 1.0
    of_seg = grad[:, head.seg_token_id].clone()
    grad[:, head.seg_token_id] = 0  # no logit uses the matrix's own row
    through = (grad.mul_(scale).to(dtype) @ head.weight.to(dtype)).float() / scale
    return through + of_seg[:, None] * head.seg_row, (of_seg[:, None] * hidden).sum(0)
