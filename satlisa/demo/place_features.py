"""What an object's state should tell of its place, as numbers: sines of its centre as in SAM, its size and its class.

The language model's states learn to hold these linearly: a linear layer that is thrown away reads them. The projector
then finds in a state what SAM needs for a mask.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LABELS = ("building", "plane")
PAIRS = 32  # half of SAM's prompt width
WIDTH = 2 * PAIRS + 2 + len(LABELS)
_SIZE_SCALE = 4.0  # sizes are about a fifth of the image


def frequencies() -> Tensor:
    """Random frequencies of x and y, (2, PAIRS), of standard deviation 1 as in SAM; always the same ones."""
    return torch.randn(2, PAIRS, generator=torch.Generator().manual_seed(9))


def place_features(boxes: Tensor, labels: Tensor) -> Tensor:
    """Features (K, WIDTH) of boxes (K, 4), fractions (left, top, right, bottom), and indices (K,) in `LABELS`"""
    corners = boxes.unflatten(1, (2, 2))
    phases = 2 * np.pi * (corners.sum(1) - 1) @ frequencies().to(boxes)  # the centre in -1..1
    sizes = _SIZE_SCALE * (corners[:, 1] - corners[:, 0])
    kinds = F.one_hot(labels, len(LABELS)).to(boxes)
    return torch.cat([phases.sin(), phases.cos(), sizes, kinds], dim=1)
