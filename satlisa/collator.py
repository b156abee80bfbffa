"""Samples become a batch: `encode_sample` does one sample, `collate` stacks them.

A batch mixes text and mask samples. Only the images that carry masks go to SAM, and masks of all samples lie in one
(N, …) stack with the number of their image, so that nothing downstream loops over samples or masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from satlisa.config import ModelConfig
from satlisa.prompts import IGNORE_INDEX, Prompt, encode_answer, encode_prompt
from satlisa.sample import RowError, Sample
from satlisa.segmenter import Segmenter


@dataclass(frozen=True)
class Encoded:
    """One sample in tensors. A answer tokens, N masks.

    `answer_ids` (A,); `sam_pixels` (3, image_size, image_size) float32 or None for a text sample; `mask_targets`
    (N, m, m) float32 shares and `mask_valid` (N, m, m) bool in the mask frame, one per `<SEG>`, in their order.
    """

    index: int
    prompt: Prompt
    answer_ids: Tensor
    sam_pixels: Tensor | None
    mask_targets: Tensor
    mask_valid: Tensor


@dataclass(frozen=True)
class Batch:
    """What the model reads. B samples, T tokens (padded right), S images with masks, N masks.

    Attributes:
        indices: row numbers of the samples.
        input_ids, attention_mask, labels: (B, T) int64; labels are -100 but on the answers' tokens.
        position_ids: (3, B, T) int64.
        pixel_values: (patches of all images, patch values) float32; image_grid_thw: (B, 3) int64.
        sam_pixels: (S, 3, image_size, image_size) float32.
        image_index: (N,) int64, the place in `sam_pixels` of each mask's image.
        mask_targets: (N, m, m) float32, the share of each pixel that the mask covers; mask_valid: (N, m, m) bool, False
            in the padding; both ordered as the `<SEG>` tokens of the flattened `input_ids`.
        num_tokens: supervised tokens, counted here because counting on a GPU would wait for it.
    """

    indices: list[int]
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    position_ids: Tensor
    pixel_values: Tensor
    image_grid_thw: Tensor
    sam_pixels: Tensor
    image_index: Tensor
    mask_targets: Tensor
    mask_valid: Tensor
    num_tokens: int

    @property
    def num_masks(self) -> int:
        """Masks, as many as `<SEG>` tokens in the answers."""
        return len(self.mask_targets)

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {n: v.to(device, non_blocking=True) for n, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **moved)


def encode_sample(sample: Sample, processor: Any, segmenter: Segmenter, config: ModelConfig) -> Encoded:
    """Tensors of one sample.

    Raises:
        RowError: the sample does not fit `max_seq_length`; it is never cut, since a cut could fall inside the image's
            tokens or take a `<SEG>` away.
    """
    assert config.seg_token_id is not None
    prompt = encode_prompt(processor, sample.turns, sample.image)
    answer_ids = encode_answer(processor.tokenizer, sample.answer, len(sample.regions), config.seg_token_id)
    length = len(prompt.input_ids) + len(answer_ids)
    if length > config.max_seq_length:
        raise RowError(
            sample.index,
            "conversations",
            f"{length} tokens, {len(answer_ids)} of them the answer's; max_seq_length is {config.max_seq_length}",
        )
    frame = segmenter.frame((sample.image.height, sample.image.width))
    shape = (len(sample.regions), segmenter.mask_size, segmenter.mask_size)
    targets = np.stack([frame.draw(region) for region in sample.regions]) if sample.regions else np.zeros(shape)
    return Encoded(
        index=sample.index,
        prompt=prompt,
        answer_ids=answer_ids,
        sam_pixels=segmenter.preprocess([sample.image])[0] if sample.regions else None,
        mask_targets=torch.from_numpy(targets).float(),
        mask_valid=torch.from_numpy(frame.valid).expand(shape),
    )


def collate(samples: Sequence[Encoded], pad_token_id: int) -> Batch:
    """Stack encoded samples, padded right to the longest; at least one sample is needed."""
    ids = [torch.cat([s.prompt.input_ids, s.answer_ids]) for s in samples]
    labels = [torch.cat([torch.full_like(s.prompt.input_ids, IGNORE_INDEX), s.answer_ids]) for s in samples]
    with_masks = [s for s in samples if s.sam_pixels is not None]
    sam_pixels = [s.sam_pixels for s in with_masks if s.sam_pixels is not None]
    counts = torch.tensor([len(s.mask_targets) for s in with_masks], dtype=torch.int64)
    return Batch(
        indices=[s.index for s in samples],
        input_ids=pad_sequence(ids, batch_first=True, padding_value=pad_token_id),
        attention_mask=pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        labels=pad_sequence(labels, batch_first=True, padding_value=IGNORE_INDEX),
        position_ids=stack_positions([answer_positions(s.prompt.position_ids, len(s.answer_ids)) for s in samples]),
        pixel_values=torch.cat([s.prompt.pixel_values for s in samples]),
        image_grid_thw=torch.cat([s.prompt.image_grid_thw for s in samples]),
        sam_pixels=torch.stack(sam_pixels) if sam_pixels else torch.empty(0),
        image_index=torch.arange(len(with_masks)).repeat_interleave(counts),
        mask_targets=torch.cat([s.mask_targets for s in samples]),
        mask_valid=torch.cat([s.mask_valid for s in samples]),
        num_tokens=sum(len(s.answer_ids) for s in samples),
    )


def answer_positions(prompt_positions: Tensor, length: int) -> Tensor:
    """Rotary positions of a prompt (3, T) and of `length` tokens behind it: (3, T + length)."""
    start = int(prompt_positions.max()) + 1
    return torch.cat([prompt_positions, torch.arange(start, start + length).expand(3, -1)], dim=1)


def stack_positions(positions: Sequence[Tensor]) -> Tensor:
    """Positions (3, T_b) of several samples as (3, B, T), padded right with 0."""
    return pad_sequence([p.T for p in positions], batch_first=True).permute(2, 0, 1)
