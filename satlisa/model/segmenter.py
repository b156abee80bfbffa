"""SlimSAM: an image and one prompt vector per mask → masks. `Frame` maps between image and padded square.

    image (H, W) ─resize longest side─► (h, w) inside a square of `image_size`² ─encoder─► 256×64×64
    prompts (N, 256) ─mask decoder─► logits (N, 256, 256) of the padded square ─Frame─► (N, H, W)

Sizes are SlimSAM-77's; the code reads them from the model's config. SAM: Kirillov et al., arXiv:2304.02643.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satlisa.geometry.frame import Frame
from satlisa.model.memory_cache import MemoryCache
from satlisa.processing.embedding_cache import EmbeddingCache
from satlisa.processing.sam_inputs import SamInputs

# Masks are resized in slices of this many pixels, so that 32 masks of a large tile do not take gigabytes.
_MAX_PIXELS = 2**25

# Masks decoded at once. A model that repeats <SEG> may request a thousand masks, each with 4 MB of image embedding and
# 40 MB of intermediate tensors. In training these are kept for the backward pass, however few are decoded at once.
_MAX_PROMPTS, _MAX_WITHOUT_GRADIENT = 128, 8


class Segmenter(nn.Module):
    """SAM's frozen image encoder and trained mask decoder around `transformers`' `SamModel`.

    Attributes:
        inputs: preprocessing, geometry and embedding cache; the part of SAM that loader workers need.
        memory: keeps image embeddings in memory; None disables it.
    """

    def __init__(self, sam: Any, image_processor: Any) -> None:
        super().__init__()
        self.sam = sam
        vision = sam.config.vision_config
        mask_size = 4 * (vision.image_size // vision.patch_size)  # two stride-2 upscalings in the decoder
        self.inputs = SamInputs(image_processor, vision.image_size, mask_size)
        self.memory: MemoryCache | None = None

    @torch.no_grad()
    def encode(self, pixel_values: Tensor) -> Tensor:
        """Image embeddings (S, C, 64, 64) of preprocessed images (S, 3, image_size, image_size), without gradient."""
        image_embeddings: Tensor = self.sam.get_image_embeddings(pixel_values.to(self.sam.dtype))
        return image_embeddings  # (S, C, e, e)

    def open_cache(self, folder: str, max_bytes: int, compute_dtype: torch.dtype) -> None:
        """Cache image embeddings in a folder from now on. The cache key includes the autocast dtype."""
        preprocessing = f"{self.inputs.image_processor.to_json_string()} {compute_dtype}"
        self.inputs.cache = EmbeddingCache(folder, self.sam.vision_encoder, preprocessing, max_bytes)

    def encode_or_recall(self, pixel_values: Tensor, image_keys: list[str], recalled: Tensor) -> Tensor:
        """Image embeddings (S, C, e, e): those of new images, which are then cached, then the `recalled` ones."""
        if not image_keys:
            return recalled.to(self.sam.dtype)
        if self.memory is None:
            image_embeddings = self.encode(pixel_values)
        else:
            image_embeddings = torch.cat(self.memory.recall_each("SAM", image_keys, self.encode, pixel_values.split(1)))
        if self.inputs.cache is not None:
            image_embeddings = self.inputs.cache.store(image_keys, image_embeddings)
        return torch.cat([image_embeddings, recalled.to(image_embeddings.dtype)]) if len(recalled) else image_embeddings

    def decode(self, image_embeddings: Tensor, prompts: Tensor, image_index: Tensor) -> tuple[Tensor, Tensor]:
        """Decode all masks of a batch, some at a time.

        Args:
            image_embeddings: (S, C, e, e), one per distinct image.
            prompts: (N, C), one per mask, in place of SAM's point and box embeddings.
            image_index: (N,) int64, the image of each prompt.

        Returns:
            mask_logits (N, mask_size, mask_size) and scores (N,) of SAM's IoU head, which no loss trains, float32.
        """
        decoder_dtype = self.sam.mask_decoder.iou_token.weight.dtype
        image_embeddings, prompts = image_embeddings.to(decoder_dtype), prompts.to(decoder_dtype)
        with torch.autocast(prompts.device.type, enabled=False):  # half precision is too coarse for sines of positions
            positions = self.sam.get_image_wide_positional_embeddings().to(decoder_dtype)  # (1, C, e, e)
        dense = self.sam.prompt_encoder.no_mask_embed.weight[:, :, None, None].to(decoder_dtype)  # (1, C, 1, 1)
        parts = []
        most = _MAX_PROMPTS if torch.is_grad_enabled() else _MAX_WITHOUT_GRADIENT
        for part, index in zip(prompts.split(most), image_index.split(most), strict=True):
            mask_logits, scores = self.sam.mask_decoder(
                image_embeddings=image_embeddings[index],  # (N, C, e, e)
                image_positional_embeddings=positions.expand(len(part), -1, -1, -1),
                sparse_prompt_embeddings=part[:, None, None],  # (N, 1, 1, C)
                dense_prompt_embeddings=dense,  # added to every image embedding
                multimask_output=False,
            )
            parts.append((mask_logits[:, 0, 0].float(), scores[:, 0, 0].float()))
        mask_logits, scores = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return mask_logits, scores

    @torch.no_grad()
    def restore(
        self,
        mask_logits: Tensor,
        original_size: tuple[int, int],
        *,
        only_union: bool = False,
        visit: Callable[[np.ndarray], object] | None = None,
        visit_logits: Callable[[np.ndarray], object] | None = None,
    ) -> np.ndarray:
        """Mask logits (N, mask_size, mask_size) → binary masks (N, H, W) at original size; threshold 0, as in SAM.

        Args:
            only_union: give their union (1, H, W) where N > 0; of the masks, a few at a time are in memory.
            visit: called with each mask (H, W) in order, also with `only_union`.
            visit_logits: the same with its logits (H, W), float32.
        """
        frame = self.inputs.frame(original_size)
        per_slice = max(1, _MAX_PIXELS // (original_size[0] * original_size[1]))
        masks = np.zeros((min(len(mask_logits), 1) if only_union else len(mask_logits), *original_size), dtype=bool)
        for start in range(0, len(mask_logits), per_slice):
            logits = restore_logits(mask_logits[start : start + per_slice], frame)
            part = (logits > 0).cpu().numpy()
            if only_union:
                masks[0] |= part.any(axis=0)
            else:
                masks[start : start + per_slice] = part
            for mask in part if visit else ():
                visit(mask)  # type: ignore[misc]
            for levels in logits.cpu().numpy() if visit_logits else ():
                visit_logits(levels)  # type: ignore[misc]
        return masks


def restore_logits(mask_logits: Tensor, frame: Frame) -> Tensor:
    """Logits of the mask frame, bilinearly sampled at the pixel centres of the original image.

    One interpolation instead of SAM's two (to the padded square, then to the image), at the same positions. Positions
    are clamped to the image's own part of the frame: padding, where nothing is trained, never bleeds in.

    Args:
        mask_logits: (N, mask_size, mask_size).

    Returns:
        (N, H, W) float32 logits in original pixels.
    """
    device = mask_logits.device
    centres = []
    for side, extent in zip(frame.original_size, frame.extent, strict=True):
        pixels = (torch.arange(side, device=device) + 0.5) * (extent / side) - 0.5
        pixels = pixels.clamp(0, int(np.ceil(extent)) - 1)
        centres.append((pixels + 0.5) * (2 / frame.mask_size) - 1)  # grid_sample's -1..1
    rows, columns = torch.meshgrid(centres[0], centres[1], indexing="ij")
    grid = torch.stack([columns, rows], dim=-1)[None]  # (1, H, W, 2)
    return F.grid_sample(mask_logits.float()[None], grid, align_corners=False, padding_mode="border")[0]
