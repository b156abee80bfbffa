"""Masks in little memory, for sessions that keep many."""

from dataclasses import dataclass

import numpy as np

from satlisa.geometry.raster import pack_mask, unpack_mask


@dataclass(frozen=True)
class Bits:
    """A mask (H, W) bool in little memory."""

    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, mask: np.ndarray) -> "Bits":
        """Pack a mask."""
        return cls(mask.shape, pack_mask(mask))

    def mask(self) -> np.ndarray:
        """The mask again."""
        return unpack_mask(self.data, self.shape)
