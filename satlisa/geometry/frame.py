"""Geometry of an image in SAM's padded square."""

from dataclasses import dataclass

import numpy as np

from satlisa.geometry.raster import coverage
from satlisa.geometry.regions import Region


@dataclass(frozen=True)
class Frame:
    """The position of an image of (height, width) in SAM's padded square and in the mask decoder's square.

    The image is scaled so that its longest side is `image_size`, then padded on the right and below. The decoder's
    logits cover the same padded square with `mask_size` pixels per side.
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
        """Ground truth in the mask frame: (mask_size, mask_size) float32, the covered fraction of each pixel.

        Fractions, not a binary mask: a 37×900 image has 10 rows here, and rounding its outlines to whole pixels would
        lose up to a fifth of a mask.
        """
        height, width = self.extent
        return coverage(region, self.mask_size, self.mask_size, scale=(width, height))
