"""The language model's head: the frozen, tied matrix with the trained `<SEG>` row in it, and the text loss behind it.

Of V = 248,320 logits a token, a loss over long answers would keep gigabytes for its gradient. The matrix is frozen, so
the gradient of the hidden states and of the `<SEG>` row is all there is: it is computed beside the loss, some tokens at
a time, and nothing else is kept.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_BLOCK_LOGITS = 2**24  # of a block of tokens: 64 MB in float32
_HALF_SCALE = 1024.0  # what float16 holds of a small probability; its products with the matrix stay far below 65,504


class LMHead(NamedTuple):
    """`weight` (V, D), frozen; `seg_row` (D,), trained, stands in row `seg_token_id`."""

    weight: Tensor
    seg_row: Tensor
    seg_token_id: int

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (A, D) → logits (A, V)."""
        logits = F.linear(hidden, self.weight)
        logits[:, self.seg_token_id] = (hidden @ self.seg_row.to(hidden.dtype)).to(logits.dtype)
        return logits

    def text_loss_sum(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy of the tokens `targets` (A,) under hidden states (A, D), summed in float32."""
        loss: Tensor = _TextLoss.apply(hidden, self.seg_row, self, targets, torch.is_grad_enabled())
        return loss


class _TextLoss(torch.autograd.Function):
    """(hidden states, `<SEG>` row) → loss, their gradients computed on the way."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, seg_row: Tensor, head: LMHead, targets: Tensor, with_gradient: bool) -> Tensor:
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
    """Gradients of hidden states (A, D) and `<SEG>` row (D,) from the logits' (A, V), float32, used up; products in
    `dtype`."""
    scale = _HALF_SCALE if dtype == torch.float16 else 1.0
    of_seg = grad[:, head.seg_token_id].clone()
    grad[:, head.seg_token_id] = 0  # the matrix' own row there is in no logit
    through = (grad.mul_(scale).to(dtype) @ head.weight.to(dtype)).float() / scale
    return through + of_seg[:, None] * head.seg_row, (of_seg[:, None] * hidden).sum(0)
