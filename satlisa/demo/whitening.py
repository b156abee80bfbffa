"""PCA whitening of SAM's patch embedding before its first step (Krizhevsky 2009, appendix A).

Natural patches vary mostly in brightness. Trained from random weights on scenes and collages, 99 % of the variance of
the patch embedding's output lay in 5 of its 96 directions: colours and their slopes. Textures, by which real buildings
are told, do not get in, and gradient descent is slow to let them in. Whitening gives the principal components of the
patches the same variance.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_FLOOR = 5e-5  # of the largest eigenvalue, added to all: components that are noise stay small


@torch.no_grad()
def whiten(model: Any, pixels: Tensor, seed: int) -> None:
    """Set a SAM's patch embedding to the first principal components of patches, whitened and mixed at random, in place.

    Its outputs have mean 0; a component of variance v has v / (v + floor) in them, nearly 1 unless it is noise.

    Args:
        pixels: (B, 3, s, s), SAM's input, from which mean and covariance of patches are estimated.
    """
    projection = model.vision_encoder.patch_embed.projection
    width, side = len(projection.weight), projection.kernel_size[0]
    patches = F.unfold(pixels, side, stride=side // 2).transpose(1, 2).flatten(0, 1)
    variances, components = torch.linalg.eigh(torch.cov(patches.T))  # the smallest first
    variances, components = variances.flip(0), components.flip(1)
    whitened = components[:, :width] / (variances[:width] + _FLOOR * variances[0]).sqrt()
    random = torch.randn(width, width, generator=torch.Generator().manual_seed(seed))
    weight = torch.linalg.qr(random)[0].to(whitened) @ whitened.T
    projection.weight.copy_(weight.view_as(projection.weight))
    projection.bias.copy_(-(weight @ patches.mean(0)))
