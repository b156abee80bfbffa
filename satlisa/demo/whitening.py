"""Whitening of SAM's patch embedding: directions of its output that carry nothing get the details of patches.

Natural patches vary mostly in brightness. After two stages on scenes and collages, 99 % of the variance of the patch
embedding's output lies in 5 of its 96 directions: colours and their slopes. Textures, by which real buildings are told,
do not get in, and gradient descent is slow to let them in. PCA whitening gives every principal component of the patches
the same variance (Krizhevsky 2009, appendix A).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_KEPT = 0.99  # share of the output's variance that stays as it is
_PLAIN = 3  # first principal components of patches, the mean colour: the kept directions have them
_FLOOR = 5e-5  # of the largest eigenvalue, added to all: components that are noise stay small


@torch.no_grad()
def whiten_details(model: Any, pixels: Tensor, scale: float, seed: int) -> int:
    """Add whitened details to the unused output directions of a SAM's patch embedding, in place.

    What the used directions carry is unchanged, so that the encoder keeps most of what it has learnt.

    Args:
        pixels: (B, 3, s, s), SAM's input, from which the covariance is estimated.
        scale: standard deviation of an added component, before `_FLOOR`.

    Returns:
        The number of directions that were in use.
    """
    projection = model.vision_encoder.patch_embed.projection
    side = projection.kernel_size[0]
    weight = projection.weight.flatten(1)
    width = len(weight)
    patches = F.unfold(pixels, side, stride=side // 2).transpose(1, 2).flatten(0, 1)
    strengths, directions = _principal(patches @ weight.T)
    used = int((strengths.cumsum(0) / strengths.sum() < _KEPT).sum()) + 1
    variances, components = _principal(patches)
    details = slice(_PLAIN, _PLAIN + width - used)
    whitened = components[:, details] / (variances[details] + _FLOOR * variances[0]).sqrt()
    random = torch.randn(width - used, width - used, generator=torch.Generator().manual_seed(seed))
    mixed = torch.linalg.qr(random)[0].to(weight)
    added = scale * directions[:, used:] @ mixed @ whitened.T
    projection.weight += added.view_as(projection.weight)
    projection.bias -= added @ patches.mean(0)
    return used


def _principal(values: Tensor) -> tuple[Tensor, Tensor]:
    """Variances, largest first, and principal components, as columns, of values (N, D)."""
    variances, components = torch.linalg.eigh(torch.cov(values.T))
    return variances.flip(0), components.flip(1)
