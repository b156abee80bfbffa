"""SlimSAM's image encoder, exact, without the map of its relative positions.

SAM adds to the score of a query and a key a bias for the distance of their rows and one for that of their columns
(Kirillov et al., arXiv:2304.02643, after MViTv2, arXiv:2112.01526):

    score(q, k) = q·k / √d + rel_h[q, row of k] + rel_w[q, column of k]

`transformers` writes both biases out for all pairs: 12 heads × 4096² numbers a global layer, 805 MB an image, and the
scores beside them once more. Here they are made for a block of queries at a time (CPU, MPS), or are part of the inner
product, [q/√d, rel_h, rel_w] · [k, one-hot row, one-hot column], which a stock flash kernel computes (CUDA).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Biases of one block, in numbers: 4 MB in float32, which stays in the caches. A global layer's attention took 0.17 s on
# two cores with blocks of 2**20, 0.20 s with 2**19 and 0.24 s with 2**21; with own products and softmax instead
# of torch's attention 0.3 to 0.6 s; with heads of 14 that are not padded to 16 0.23 s.
_BLOCK_SCORES = 2**20
_ALIGNMENT = 8  # kernels want widths in multiples of this


class RelativeAttention(nn.Module):
    """Self-attention with decomposed relative positions, in the place of `transformers`' `SamVisionAttention`.

    It takes over that module's parameters under their names, so that checkpoints and counts stay as they are. For
    inference only: the encoder is frozen, and nothing here keeps what a gradient would need.
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.num_heads: int = attention.num_attention_heads
        self.qkv, self.proj = attention.qkv, attention.proj
        self.rel_pos_h, self.rel_pos_w = attention.rel_pos_h, attention.rel_pos_w  # (2·side - 1, d)

    @torch.no_grad()
    def forward(self, hidden_states: Tensor) -> tuple[Tensor, None]:
        """(B, h, w, heads·d) → the same, for B images or windows of h×w tokens; no attention weights are kept."""
        batch, height, width, channels = hidden_states.shape
        qkv = self.qkv(hidden_states).view(batch, height * width, 3, self.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).flatten(1, 2)  # (B·heads, h·w, d) each
        grid = query.view(-1, height, width, query.shape[-1])
        rel_h = torch.einsum("nhwc,hkc->nhwk", grid, _by_distance(self.rel_pos_h, height).to(query.dtype))
        rel_w = torch.einsum("nhwc,wkc->nhwk", grid, _by_distance(self.rel_pos_w, width).to(query.dtype))
        attend = attend_folded if query.is_cuda else attend_in_blocks
        mixed = attend(query, key, value, rel_h.flatten(1, 2), rel_w.flatten(1, 2))
        mixed = mixed.view(batch, self.num_heads, height, width, -1).permute(0, 2, 3, 1, 4)
        attended: Tensor = self.proj(mixed.reshape(batch, height, width, channels))
        return attended, None


def _by_distance(table: Tensor, side: int) -> Tensor:
    """Rows of a table (2·side - 1, d) by the distance of query and key: (side, side, d)."""
    place = torch.arange(side, device=table.device)
    return table[place[:, None] - place[None, :] + side - 1]


def attend_in_blocks(query: Tensor, key: Tensor, value: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """Attention over a grid of h·w tokens, for a few queries at a time; their biases never exceed `_BLOCK_SCORES`.

    Args:
        query, key, value: (N, h·w, d), one row per head and image.
        rel_h, rel_w: (N, h·w, h) and (N, h·w, w), each query's bias for the keys' rows and columns.

    Returns:
        (N, h·w, d).
    """
    tokens, depth = query.shape[1:]
    query, key, value = (F.pad(x, (0, -depth % _ALIGNMENT))[None] for x in (query, key, value))  # (1, N, h·w, 16)
    mixed = torch.empty_like(value)
    heads = max(1, min(len(rel_h), _BLOCK_SCORES // (tokens * tokens)))
    block = min(tokens, max(1, _BLOCK_SCORES // (heads * tokens)))
    buffer = rel_h.new_empty(heads, block, rel_h.shape[-1], rel_w.shape[-1])  # one for all blocks: no page faults
    for first in range(0, len(rel_h), heads):
        own = slice(first, first + heads)
        for start in range(0, tokens, block):
            part = slice(start, start + block)
            row_bias, column_bias = rel_h[own, part, :, None], rel_w[own, part, None, :]
            bias = buffer[: len(row_bias), : row_bias.shape[1]]  # (heads, block, h, w)
            torch.add(row_bias, column_bias, out=bias)
            mixed[:, own, part] = F.scaled_dot_product_attention(
                query[:, own, part], key[:, own], value[:, own], attn_mask=bias.flatten(2)[None], scale=depth**-0.5
            )
    return mixed[0, ..., :depth]


def attend_folded(query: Tensor, key: Tensor, value: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """The same as `attend_in_blocks` as one call of torch's attention, the biases folded into queries and keys."""
    height, width, depth = rel_h.shape[-1], rel_w.shape[-1], value.shape[-1]
    rows = torch.eye(height, device=key.device, dtype=key.dtype).repeat_interleave(width, dim=0)  # (h·w, h)
    columns = torch.eye(width, device=key.device, dtype=key.dtype).repeat(height, 1)  # (h·w, w)
    place = torch.cat([rows, columns], dim=1).expand(len(key), -1, -1)
    folded_query = torch.cat([query * depth**-0.5, rel_h, rel_w], dim=-1)
    folded_key = torch.cat([key, place], dim=-1)
    spare = -folded_key.shape[-1] % _ALIGNMENT
    folded_query, folded_key = F.pad(folded_query, (0, spare)), F.pad(folded_key, (0, spare))
    padded = F.pad(value, (0, folded_key.shape[-1] - depth))  # flash kernels want one width for all three
    mixed = F.scaled_dot_product_attention(folded_query[None], folded_key[None], padded[None], scale=1.0)
    return mixed[0, ..., :depth]
