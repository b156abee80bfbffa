"""Masks in little memory, for sessions that keep many."""

import zlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Bits:
    """A mask (H, W) bool in little memory."""

    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, mask: np.ndarray) -> "Bits":
        """Pack a mask."""
        return cls(mask.shape, zlib.compress(np.packbits(mask).tobytes(), 1))

    def mask(self) -> np.ndarray:
        """The mask again."""
        flat = np.unpackbits(np.frombuffer(zlib.decompress(self.data), dtype=np.uint8), count=int(np.prod(self.shape)))
        return flat.reshape(self.shape).astype(bool)
