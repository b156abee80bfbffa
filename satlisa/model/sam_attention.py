"""Exact attention of SAM's image encoder that never materializes the full relative-position bias.

SAM adds decomposed relative-position biases to the attention scores, one for rows and one for columns (Kirillov et
al., arXiv:2304.02643, after MViTv2, arXiv:2112.01526):

    score(q, k) = q·k / √d + rel_h[q, row of k] + rel_w[q, column of k]

`transformers` materializes the bias of all pairs: 12 heads × 4096² numbers per global layer, 805 MB per image, and the
scores take as much again. On CPU and MPS this module computes the bias for one block of queries at a time. On CUDA it
folds the bias into the inner product, [q/√d, rel_h, rel_w] · [k, one-hot row, one-hot column], so that torch's flash
attention kernel applies.
"""

from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Bias values per block: 8 MB in float32, which fits the CPU caches. Measured for one global layer on two cores:
# 0.17 s with 2**20 and 2**21 on idle cores, less with 2**21 on busy ones (half as many calls wait for the slower core);
# at least 0.20 s with other sizes; 0.3 to 0.6 s with separate matrix products and softmax instead of torch's attention;
# 0.23 s with head width 14 not padded to 16.
_BLOCK_SCORES = 2**21
_ALIGNMENT = 8  # attention kernels need head widths that are multiples of this


class RelativeAttention(nn.Module):
    """Self-attention with decomposed relative positions; replaces `transformers`' `SamVisionAttention`.

    Shares that module's parameters under the same names, so state dicts are unchanged. Inference only: the encoder is
    frozen.
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.num_heads: int = attention.num_attention_heads
        self.qkv, self.proj = attention.qkv, attention.proj
        self.rel_pos_h, self.rel_pos_w = attention.rel_pos_h, attention.rel_pos_w  # (2·side - 1, d)

    @torch.no_grad()
    def forward(self, hidden_states: Tensor) -> tuple[Tensor, None]:
        """(B, h, w, heads·d) → the same shape, for B images or windows of h×w tokens. Returns no attention weights."""
        batch, height, width, channels = hidden_states.shape
        depth, heads = channels // self.num_heads, self.num_heads
        spare = -depth % _ALIGNMENT
        # Zero rows and columns in the weights pad the head width; padding the activations would copy them.
        qkv = F.linear(hidden_states, *_with_rows(self.qkv, 3 * heads, spare))
        query, key, value = qkv.view(batch, height * width, 3, heads, depth + spare).permute(2, 0, 3, 1, 4)
        grid = query.unflatten(2, (height, width))  # (B, heads, h, w, D)
        by_row, by_column = (
            F.pad(_by_distance(table, side).to(query.dtype), (0, spare))
            for table, side in ((self.rel_pos_h, height), (self.rel_pos_w, width))
        )
        rel_h = torch.einsum("bnhwc,hkc->bnhwk", grid, by_row)
        rel_w = torch.einsum("bnhwc,wkc->bnhwk", grid, by_column)
        attend = attend_folded if query.is_cuda else attend_in_blocks
        mixed = attend(query, key, value, rel_h, rel_w, depth**-0.5)  # (B, h·w, heads, D)
        weight = F.pad(self.proj.weight.unflatten(1, (heads, depth)), (0, spare)).flatten(1)
        attended = F.linear(mixed.reshape(batch, height, width, -1), weight, self.proj.bias)
        return attended, None


def use_relative_attention(sam: Any) -> None:
    """Replace the attention modules of a `SamModel`'s encoder in place, keeping their parameters. Idempotent."""
    for layer in sam.vision_encoder.layers:
        if not isinstance(layer.attn, RelativeAttention):
            layer.attn = RelativeAttention(layer.attn)


def _with_rows(linear: Any, groups: int, spare: int) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a linear layer with `spare` zero rows appended to each group of output rows."""
    weight = F.pad(linear.weight.unflatten(0, (groups, -1)), (0, 0, 0, spare)).flatten(0, 1)
    bias = None if linear.bias is None else F.pad(linear.bias.unflatten(0, (groups, -1)), (0, spare)).flatten()
    return weight, bias


def _by_distance(table: Tensor, side: int) -> Tensor:
    """Look up a table (2·side - 1, d) by the offset of query and key: (side, side, d)."""
    place = torch.arange(side, device=table.device)
    return table[place[:, None] - place[None, :] + side - 1]


def attend_in_blocks(query: Tensor, key: Tensor, value: Tensor, rel_h: Tensor, rel_w: Tensor, scale: float) -> Tensor:
    """Attention over a grid of h·w tokens, a few rows of queries at a time.

    The bias of a block takes at most `_BLOCK_SCORES` values, or those of one row of one head if that is more.

    Args:
        query, key, value: (B, heads, h·w, D).
        rel_h, rel_w: (B, heads, h, w, h) and (B, heads, h, w, w), each query's bias for the keys' rows and columns.
        scale: factor of the inner products.

    Returns:
        (B, h·w, heads, D).
    """
    batch, heads, tokens, depth = query.shape
    mixed = query.new_empty(batch, tokens, heads, depth)
    maps = _BLOCK_SCORES // (tokens * tokens)  # complete score maps per block
    images, part = max(1, maps // heads), max(1, min(heads, maps))
    height, width = rel_h.shape[2:4]
    rows = min(height, max(1, _BLOCK_SCORES // (part * tokens * width)))
    buffer = rel_h.new_empty(images, part, rows, width, height, width)  # reused by all blocks, to avoid page faults
    for image, head, row in product(range(0, batch, images), range(0, heads, part), range(0, height, rows)):
        own = slice(image, image + images), slice(head, head + part)
        block = (*own, slice(row, row + rows))
        row_bias, column_bias = rel_h[block][..., None], rel_w[block][..., None, :]
        bias = buffer[: row_bias.shape[0], : row_bias.shape[1], : row_bias.shape[2]]
        torch.add(row_bias, column_bias, out=bias)
        queries = slice(row * width, (row + rows) * width)
        attended = F.scaled_dot_product_attention(
            query[own][:, :, queries], key[own], value[own], attn_mask=bias.flatten(4).flatten(2, 3), scale=scale
        )
        mixed[own[0], queries, own[1]] = attended.transpose(1, 2)
    return mixed


def attend_folded(query: Tensor, key: Tensor, value: Tensor, rel_h: Tensor, rel_w: Tensor, scale: float) -> Tensor:
    """Same as `attend_in_blocks` in one call of torch's attention, with the biases folded into queries and keys."""
    height, width, depth = rel_h.shape[-1], rel_w.shape[-1], value.shape[-1]
    rows = torch.eye(height, device=key.device, dtype=key.dtype).repeat_interleave(width, dim=0)  # (h·w, h)
    columns = torch.eye(width, device=key.device, dtype=key.dtype).repeat(height, 1)  # (h·w, w)
    place = torch.cat([rows, columns], dim=1).expand(*key.shape[:2], -1, -1)
    folded_query = torch.cat([query * scale, rel_h.flatten(2, 3), rel_w.flatten(2, 3)], dim=-1)
    folded_key = torch.cat([key, place], dim=-1)
    spare = -folded_key.shape[-1] % _ALIGNMENT
    folded_query, folded_key = F.pad(folded_query, (0, spare)), F.pad(folded_key, (0, spare))
    padded = F.pad(value, (0, folded_key.shape[-1] - depth))  # flash kernels need equal widths of q, k and v
    mixed = F.scaled_dot_product_attention(folded_query, folded_key, padded, scale=1.0)
    return mixed[..., :depth].transpose(1, 2)
