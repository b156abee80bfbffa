"""SAM's inputs for an image: preprocessed pixels, geometry of the padded square, cached embedding.

Small enough to be pickled to loader workers, unlike SAM itself (39 MB).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from satlisa.geometry.frame import Frame
from satlisa.processing.embedding_cache import EmbeddingCache


@dataclass
class SamInputs:
    """SAM's preprocessing and geometry, without SAM.

    Attributes:
        image_processor: `transformers`' `SamImageProcessor` of the checkpoint.
        image_size: side of SAM's padded input in pixels, 1024 for SlimSAM-77.
        mask_size: side of the mask decoder's logits, 256 for SlimSAM-77.
        cache: image embeddings on disk; None disables caching.
        in_memory: whether outputs of the encoders are kept in memory.
    """

    image_processor: Any
    image_size: int
    mask_size: int
    cache: EmbeddingCache | None = None
    in_memory: bool = False

    @property
    def needs_keys(self) -> bool:
        """Whether every image needs its key, also one that is alone in its batch."""
        return self.cache is not None or self.in_memory

    def frame(self, original_size: tuple[int, int]) -> Frame:
        """The geometry of an image of (height, width)."""
        return Frame(original_size, self.image_size, self.mask_size)

    def preprocess(self, images: Sequence[Image.Image]) -> Tensor:
        """(S, 3, image_size, image_size) float32: longest side resized, ImageNet mean and std, zero padding.

        One image after the other: the processor keeps several copies of all that it is given.
        """
        parts = [self.image_processor(images=[image], return_tensors="pt")["pixel_values"] for image in images]
        return torch.cat(parts)

    def recall(self, image_key: str) -> Tensor | None:
        """The cached embedding (C, e, e) float16 of an image, or None."""
        return None if self.cache is None else self.cache.load(image_key)
