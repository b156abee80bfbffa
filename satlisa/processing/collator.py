"""Collate encoded samples (`processor.encode_sample`) into a batch.

A batch mixes text and mask samples. It holds each distinct image once, however many samples ask about it, and only
images with masks go to SAM. The masks of all samples are one (N, …) stack with an image index each, and supervised
tokens and `<SEG>` are given as flat positions. Downstream code therefore neither loops over samples or masks nor
searches a tensor on the GPU, which would force a synchronization.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from satlisa.processing.chat import Prompt


@dataclass(frozen=True)
class Encoded:
    """One sample in tensors. A answer tokens, N masks.

    Attributes:
        index: row number of the sample.
        image_key: equal for equal images (`images.fingerprint`); "" where nothing asks.
        answer_ids: (A,) int64; seg_places: (N,) int64, which of them are `<SEG>`.
        sam_pixels: (3, image_size, image_size) float32; None for a text sample, or if the cache has the embedding.
        sam_recalled: (C, e, e) float16, the image's embedding from the cache, or None.
        mask_targets: (N, m, m) float32 covered fractions, mask_valid: (N, m, m) bool; mask frame, in `<SEG>` order.
        later_ids: (L,) int64, the conversation after the answer; later_answers: (E,) int64, places of answers in it.
        shortened: whether the row's conversation is longer than what is encoded here.
        places_cut: whether the answer says less about places than `instance_places` wants.
    """

    index: int
    image_key: str
    prompt: Prompt
    answer_ids: Tensor
    seg_places: Tensor
    sam_pixels: Tensor | None
    sam_recalled: Tensor | None
    mask_targets: Tensor
    mask_valid: Tensor
    later_ids: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    later_answers: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    shortened: bool = False
    places_cut: bool = False

    @property
    def length(self) -> int:
        """Number of tokens of the whole conversation."""
        return len(self.prompt.input_ids) + len(self.answer_ids) + len(self.later_ids)

    @property
    def input_ids(self) -> Tensor:
        """The whole conversation, (T,) int64."""
        return torch.cat([self.prompt.input_ids, self.answer_ids, self.later_ids])

    @property
    def supervised(self) -> Tensor:
        """Places in `input_ids` of the tokens of every answer, (A,) int64."""
        start, stop = len(self.prompt.input_ids), len(self.prompt.input_ids) + len(self.answer_ids)
        return torch.cat([self.prompt.supervised, torch.arange(start, stop), stop + self.later_answers])


@dataclass(frozen=True)
class Batch:
    """The model's input. B samples, T tokens (padded right), A supervised tokens, S images with masks, N masks.

    Attributes:
        indices: row numbers of the samples.
        input_ids, attention_mask: (B, T) int64.
        position_ids: (3, B, T) int64.
        supervised: (A,) int64, positions in the flattened (B·T) whose state predicts an answer token.
        targets: (A,) int64, the predicted tokens.
        seg_positions: (N,) int64, positions of `<SEG>` in the flattened (B·T).
        pixel_values: (patches of the distinct images, patch values) float32; image_grid_thw: (images, 3) int64.
        image_keys: of the distinct images; image_of_row: for each of the B samples, the index of its image among them.
        sam_pixels: (S - R, 3, image_size, image_size) float32, distinct images; `sam_keys`: their image keys.
        sam_recalled: (R, C, e, e) float16, embeddings of distinct images from the cache.
        image_index: (N,) int64, the index of each mask's image among the S: `sam_pixels`, then `sam_recalled`.
        mask_targets: (N, m, m) float32, the covered fraction of each pixel; mask_valid: (N, m, m) bool, False in the
            padding; both ordered as `seg_positions`.
        mask_weights: (N,) float32, what each mask counts in the loss: 1, or 1 / the masks of its row.
        mask_divisor: what the sums of the mask losses are divided by: masks, or rows with masks.
    """

    indices: list[int]
    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    supervised: Tensor
    targets: Tensor
    seg_positions: Tensor
    pixel_values: Tensor
    image_grid_thw: Tensor
    image_keys: list[str]
    image_of_row: list[int]
    sam_pixels: Tensor
    sam_keys: list[str]
    sam_recalled: Tensor
    image_index: Tensor
    mask_targets: Tensor
    mask_valid: Tensor
    mask_weights: Tensor
    mask_divisor: int

    @property
    def num_tokens(self) -> int:
        """Number of supervised tokens."""
        return len(self.targets)

    @property
    def num_masks(self) -> int:
        """Number of masks, which is the number of `<SEG>` tokens in the answers."""
        return len(self.mask_targets)

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {n: v.to(device, non_blocking=True) for n, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **moved)


def collate(samples: Sequence[Encoded], pad_token_id: int, mask_loss_per: str = "mask") -> Batch:
    """Stack encoded samples (at least one), padded right to the longest.

    `mask_loss_per`: what has the same say in the mask losses, each "mask" or each "row" with masks.

    Raises:
        ValueError: a sample whose numbers of `<SEG>` and masks differ.
    """
    for s in samples:
        if len(s.seg_places) != len(s.mask_targets):
            raise ValueError(f"{len(s.seg_places)} <SEG> tokens for {len(s.mask_targets)} masks (row {s.index})")
    ids = [s.input_ids for s in samples]
    length = max(map(len, ids))
    placed = [(row * length, s) for row, s in enumerate(samples)]  # where each begins in the flattened (B·T)
    answers = [s.supervised for s in samples]
    images = {s.image_key: s.prompt for s in samples}
    numbers = {key: number for number, key in enumerate(images)}
    recalled = {s.image_key: s.sam_recalled for s in samples if s.sam_recalled is not None}
    pixels = {s.image_key: s.sam_pixels for s in samples if s.sam_pixels is not None and s.image_key not in recalled}
    counts = [len(s.mask_targets) for s in samples if len(s.mask_targets)]
    per_row = mask_loss_per == "row"
    sam_numbers = {key: number for number, key in enumerate([*pixels, *recalled])}
    return Batch(
        indices=[s.index for s in samples],
        input_ids=pad_sequence(ids, batch_first=True, padding_value=pad_token_id),
        attention_mask=pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        position_ids=stack_positions(
            [answer_positions(s.prompt.position_ids, s.length - len(s.prompt.input_ids)) for s in samples]
        ),
        supervised=torch.cat([start - 1 + own for (start, _), own in zip(placed, answers, strict=True)]),
        targets=torch.cat([row[own] for row, own in zip(ids, answers, strict=True)]),
        seg_positions=torch.cat([start + len(s.prompt.input_ids) + s.seg_places for start, s in placed]),
        pixel_values=torch.cat([prompt.pixel_values for prompt in images.values()]),
        image_grid_thw=torch.cat([prompt.image_grid_thw for prompt in images.values()]),
        image_keys=list(images),
        image_of_row=[numbers[s.image_key] for s in samples],
        sam_pixels=torch.stack(list(pixels.values())) if pixels else torch.empty(0),
        sam_keys=list(pixels),
        sam_recalled=torch.stack(list(recalled.values())) if recalled else torch.empty(0),
        image_index=torch.tensor([sam_numbers[s.image_key] for s in samples for _ in s.seg_places], dtype=torch.int64),
        mask_targets=torch.cat([s.mask_targets for s in samples]),
        mask_valid=torch.cat([s.mask_valid for s in samples]),
        mask_weights=torch.tensor([1 / count if per_row else 1.0 for count in counts for _ in range(count)]),
        mask_divisor=len(counts) if per_row else sum(counts),
    )


def answer_positions(prompt_positions: Tensor, length: int) -> Tensor:
    """Rotary positions of a prompt (3, T) and `length` tokens after it: (3, T + length)."""
    start = int(prompt_positions.max()) + 1
    return torch.cat([prompt_positions, torch.arange(start, start + length).expand(3, -1)], dim=1)


def stack_positions(positions: Sequence[Tensor]) -> Tensor:
    """Positions (3, T_b) of several samples as (3, B, T), padded right with 0."""
    return pad_sequence([p.T for p in positions], batch_first=True).permute(2, 0, 1)
