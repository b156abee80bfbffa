"""Where an image lies in SAM's padded square, in both directions."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from satlisa.geometry.raster import coverage
from satlisa.geometry.regions import Region


@dataclass(frozen=True)
class Frame:
    """Where an image of (height, width) lies in SAM's padded square, and in the mask decoder's square.

    The image is scaled until its longest side is `image_size`, and padded right and below. The decoder's logits
    cover the same padded square with `mask_size` pixels a side.
    """

    original_size: tuple[int, int]
    image_size: int
    mask_size: int

    @property
    def resized(self) -> tuple[int, int]:
        """(h, w) of the image inside the padded input, rounded as SAM's `ResizeLongestSide` does."""
        scale = self.image_size / max(self.original_size)
        height, width = (max(1, int(side * scale + 0.5)) for side in self.original_size)
        return height, width

    @property
    def extent(self) -> tuple[float, float]:
        """(h, w) of the image in pixels of the mask frame; may be fractional."""
        height, width = self.resized
        return height * self.mask_size / self.image_size, width * self.mask_size / self.image_size

    @property
    def valid(self) -> np.ndarray:
        """(mask_size, mask_size) bool: pixels of the mask frame that the image touches; the rest is padding."""
        rows, columns = (int(np.ceil(side)) for side in self.extent)
        inside = np.zeros((self.mask_size, self.mask_size), dtype=bool)
        inside[:rows, :columns] = True
        return inside

    def draw(self, region: Region) -> np.ndarray:
        """Ground truth drawn straight into the mask frame: (mask_size, mask_size) float32, the share of each pixel.

        Shares instead of yes or no: a 37×900 image has 10 rows here, and rounding its outlines to whole ones would
        lose up to a fifth of a mask.
        """
        height, width = self.extent
        return coverage(region, self.mask_size, self.mask_size, scale=(width, height))

    def restore(self, mask_logits: Tensor) -> Tensor:
        """Logits of the mask frame, bilinearly sampled at the pixel centres of the original image.

        One interpolation instead of SAM's two (to the padded square, then to the image), at the same positions.
        Positions are clamped to the image's own part of the frame: padding, where nothing is trained, never bleeds in.

        Args:
            mask_logits: (N, mask_size, mask_size).

        Returns:
            (N, H, W) float32 logits in original pixels.
        """
        device = mask_logits.device
        centres = []
        for side, extent in zip(self.original_size, self.extent, strict=True):
            pixels = (torch.arange(side, device=device) + 0.5) * (extent / side) - 0.5
            pixels = pixels.clamp(0, int(np.ceil(extent)) - 1)
            centres.append((pixels + 0.5) * (2 / self.mask_size) - 1)  # grid_sample's -1..1
        rows, columns = torch.meshgrid(centres[0], centres[1], indexing="ij")
        grid = torch.stack([columns, rows], dim=-1)[None]  # (1, H, W, 2)
        return F.grid_sample(mask_logits.float()[None], grid, align_corners=False, padding_mode="border")[0]
