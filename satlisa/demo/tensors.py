"""Inputs of both demo models for many images of one size at once, on any device: what the processors make of each."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_PATCH, _MERGE, _FRAMES = 16, 2, 2
_SAM_MEAN, _SAM_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def vlm_patches(pixels: Tensor) -> Tensor:
    """Qwen's patches (B, P, 1536) float32 of images (B, H, W, 3) uint8, whose sides are multiples of 32.

    Patches that become one token are neighbours: (rows / 2, columns / 2, 2, 2); a still image is two equal frames.
    """
    images = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
    batch, channels, height, width = images.shape
    rows, columns = height // (_PATCH * _MERGE), width // (_PATCH * _MERGE)
    blocks = images.reshape(batch, channels, rows, _MERGE, _PATCH, columns, _MERGE, _PATCH)
    blocks = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7)  # (B, rows, columns, 2, 2, channels, 16, 16)
    blocks = blocks[..., None, :, :].expand(*blocks.shape[:-2], _FRAMES, _PATCH, _PATCH)
    return blocks.reshape(batch, rows * columns * _MERGE**2, -1)


def sam_pixels(pixels: Tensor) -> Tensor:
    """SAM's input (B, 3, s, s) float32 of square images (B, s, s, 3) uint8 at its own size."""
    mean, std = (torch.tensor(values, device=pixels.device)[:, None, None] for values in (_SAM_MEAN, _SAM_STD))
    scaled: Tensor = (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std
    return scaled


class Tower:
    """The vision tower of a VLM for batches of equal square images, with one attention call per block.

    `transformers` calls attention once per image, which costs more than the attention itself at this size.
    """

    def __init__(self, visual: Any, side: int) -> None:
        self._visual = visual
        patches = side // _PATCH
        rows = torch.arange(patches * patches).view(patches // _MERGE, _MERGE, patches // _MERGE, _MERGE)
        self._order = rows.permute(0, 2, 1, 3).reshape(-1)  # of the position embeddings, row by row
        if len(self._order) != visual.pos_embed.num_embeddings:
            raise ValueError(f"{len(self._order)} patches for {visual.pos_embed.num_embeddings} position embeddings")
        self._rotary = self._turns(patches)

    def _turns(self, patches: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the patches' rotary positions (P, d), as the tower's own forward pass makes them."""
        seen: list[tuple[Tensor, Tensor]] = []
        visual = self._visual
        block = visual.blocks[0]
        hook = block.register_forward_pre_hook(
            lambda _, __, kwargs: seen.append(kwargs["position_embeddings"]), with_kwargs=True
        )
        weight = visual.patch_embed.proj.weight
        with torch.no_grad():
            visual(
                torch.zeros(patches**2, weight[0].numel(), device=weight.device),
                grid_thw=torch.tensor([[1, patches, patches]], device=weight.device),
            )
        hook.remove()
        return seen[0]

    def __call__(self, pixels: Tensor) -> Tensor:
        """Image tokens (B, C, D) of images (B, side, side, 3) uint8."""
        visual = self._visual
        weight, bias = visual.patch_embed.proj.weight, visual.patch_embed.proj.bias
        hidden = F.linear(vlm_patches(pixels), weight.flatten(1), bias) + visual.pos_embed.weight[self._order]
        for block in visual.blocks:
            hidden = hidden + self._attend(block.attn, block.norm1(hidden))
            hidden = hidden + block.mlp(block.norm2(hidden))
        tokens: Tensor = visual.merger(hidden.flatten(0, 1)).unflatten(0, (len(pixels), -1))
        return tokens

    def _attend(self, attention: Any, hidden: Tensor) -> Tensor:
        query, key, value = attention.qkv(hidden).unflatten(-1, (3, attention.num_heads, -1)).unbind(2)
        cos, sin = (part[None, :, None] for part in self._rotary)
        query, key = (part * cos + _half_turned(part) * sin for part in (query, key))
        out = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (query, key, value)))
        projected: Tensor = attention.proj(out.transpose(1, 2).flatten(2))
        return projected


def _half_turned(part: Tensor) -> Tensor:
    low, high = part.chunk(2, dim=-1)
    return torch.cat([-high, low], dim=-1)
