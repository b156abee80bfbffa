"""Chat rendering: turns and an image become token ids, the same ones in training and in inference.

Two things are unusual. The chat template is rendered around placeholders, and user text is inserted as *tokens*
afterwards; strings such as `<|im_end|>`, `<think>` or `<SEG>` are split first, so they stay plain text. And the 3D
rotary positions are computed here, on the CPU and per sample: the model keeps no `rope_deltas` between calls, so two
threads can share one model.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from satlisa.data.json_cells import without_surrogates
from satlisa.data.sample import Sample, Turn, answer_places
from satlisa.errors import SatlisaError

IGNORE_INDEX = -100  # label of unsupervised positions, torch's default ignore_index

# Private-use characters: the placeholder of a turn's text while the template is rendered.
_PLACE = "\ue000{}\ue001"
_PLACES = re.compile("\ue000(\\d+)\ue001")


@dataclass(frozen=True)
class Prompt:
    """One rendered question about one image. T tokens, P patches.

    Attributes:
        input_ids: (T,) int64, ends where the answer begins.
        position_ids: (3, T) int64 rotary positions (time, height, width).
        pixel_values: (P, channels * temporal patch * patch²) float32, the processor's patches.
        image_grid_thw: (1, 3) int64, patches in time, height and width.
        supervised: (E,) int64, places in `input_ids` of earlier answers and their ends; training alone uses them.
    """

    input_ids: Tensor
    position_ids: Tensor
    pixel_values: Tensor
    image_grid_thw: Tensor
    supervised: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))


def limit_image_tokens(processor: Any, max_image_tokens: int) -> None:
    """Cap the processor's image size in place, so that an image takes at most `max_image_tokens` tokens.

    One token covers (patch_size * merge_size)² pixels, 32×32 in Qwen3.5.
    """
    images = processor.image_processor
    pixels = max_image_tokens * (images.patch_size * images.merge_size) ** 2
    longest = min(images.size["longest_edge"], pixels)
    images.size = {"longest_edge": longest, "shortest_edge": min(images.size["shortest_edge"], longest)}


def as_turns(prompt: str | Sequence[Turn]) -> tuple[Turn, ...]:
    """A plain question as a single user turn; turns pass through."""
    turns = (Turn("user", prompt),) if isinstance(prompt, str) else tuple(prompt)
    if not turns or turns[-1].role != "user" or not turns[-1].text.strip():
        raise SatlisaError(f"prompt: expected text or turns that end with the user's, found {prompt!r}; ask a question")
    return turns


def encode_prompt(processor: Any, turns: Sequence[Turn], image: Image.Image) -> Prompt:
    """Render turns and image in the non-thinking chat form, up to and including the start of the answer.

    Args:
        processor: a `Qwen3VLProcessor`, its image size already limited (`limit_image_tokens`).
        turns: an optional system turn, then user and assistant turns; the image goes in front of the first user turn.
        image: RGB.

    Raises:
        SatlisaError: an image that the processor cannot size (sides that differ more than 200-fold).
    """
    return render_prompt(processor, turns, *encode_image(processor, image))


def render_prompt(processor: Any, turns: Sequence[Turn], pixel_values: Tensor, grid: Tensor) -> Prompt:
    """`encode_prompt` with the outputs of `encode_image`; prompts about one image can share them."""
    merge = processor.image_processor.merge_size
    num_image_tokens = int(grid.prod()) // merge**2
    ids: list[int] = []
    supervised: list[int] = []
    for token, is_answer in _encode_turns(processor, turns):
        supervised += [len(ids)] * is_answer
        ids.extend([token] * (num_image_tokens if token == processor.image_token_id else 1))
    input_ids = torch.tensor(ids)
    positions = rotary_positions(input_ids, processor.image_token_id, grid[0, 1:] // merge)
    return Prompt(input_ids, positions, pixel_values, grid, torch.tensor(supervised, dtype=torch.int64))


def encode_later(processor: Any, sample: Sample) -> tuple[Tensor, Tensor]:
    """The tokens of a conversation after its answer (L,) int64, and the places of later answers among them (E,) int64.

    The last answer is in the form in which it would be generated, those before it as the template renders a history.
    """
    if not sample.later:
        return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    *between, last = sample.later
    turns = (*sample.turns, Turn("assistant", sample.answer), *between)
    rendered = _encode_turns(processor, turns, after=len(sample.turns))
    if rendered[0][0] == processor.tokenizer.eos_token_id:
        rendered = rendered[1:]  # the answer's own end is supervised already
    rendered += [(token, True) for token in _tokenize_plain(processor.tokenizer, last.text)]
    rendered.append((processor.tokenizer.eos_token_id, True))
    ids, is_answer = zip(*rendered, strict=True)
    return torch.tensor(ids), torch.tensor(is_answer).nonzero()[:, 0]


def count_tokens(processor: Any, turns: Sequence[Turn], num_image_tokens: int) -> int:
    """Tokens of a conversation that ends with an answer, about an image of that many tokens."""
    answer = _tokenize_plain(processor.tokenizer, turns[-1].text)
    return len(_encode_turns(processor, turns[:-1])) - 1 + num_image_tokens + len(answer) + 1


def encode_image(processor: Any, image: Image.Image) -> tuple[Tensor, Tensor]:
    """The VLM's input for an image: patches (P, patch values) float32 and their grid (1, 3)."""
    try:
        features = processor.image_processor(images=[image], return_tensors="pt")
    except ValueError as error:  # smart_resize refuses extreme aspect ratios
        raise SatlisaError(f"image of {image.width}×{image.height} pixels: {error}; crop it") from error
    return features["pixel_values"], features["image_grid_thw"]


def image_grid(processor: Any, size: tuple[int, int]) -> Tensor:
    """The grid (1, 3) that `encode_image` gives an image of (width, height), without its pixels.

    Raises:
        SatlisaError: as `encode_image`.
    """
    images, (width, height) = processor.image_processor, size
    fewest, most = images.size["shortest_edge"], images.size["longest_edge"]
    try:
        resized = smart_resize(height, width, images.patch_size * images.merge_size, fewest, most)
    except ValueError as error:
        raise SatlisaError(f"image of {width}×{height} pixels: {error}; crop it") from error
    return torch.tensor([[1, *(side // images.patch_size for side in resized)]])


def _encode_turns(processor: Any, turns: Sequence[Turn], after: int = -1) -> list[tuple[int, bool]]:
    """Token ids of the rendered chat after a turn, with a single placeholder token for the image; each with whether it
    belongs to an answer or ends one."""
    first_user = next(number for number, turn in enumerate(turns) if turn.role == "user")
    messages = []
    for number, turn in enumerate(turns):
        parts = [{"type": "text", "text": _PLACE.format(number)}]
        messages.append({"role": turn.role, "content": [{"type": "image"}] * (number == first_user) + parts})
    form = dict(tokenize=False, add_generation_prompt=True, enable_thinking=False)
    rendered = processor.tokenizer.apply_chat_template(messages, chat_template=processor.chat_template, **form)
    tokens: list[tuple[int, bool]] = []
    answers, is_answer, shown = answer_places(turns), False, after < 0
    pieces, names = _PLACES.split(rendered), _token_names(processor.tokenizer)
    template = {piece: _tokenize(processor.tokenizer, piece) for piece in set(pieces[::2])}  # few, however many turns
    for number, piece in enumerate(pieces):
        # re.split alternates the template's own text with the turn numbers captured from the placeholders.
        if number % 2 == 0:
            ids = template[piece]
            ends = is_answer and ids[:1] == [processor.tokenizer.eos_token_id]
            found = [(token, ends and place == 0) for place, token in enumerate(ids)]
        else:
            is_answer = int(piece) in answers
            text = turns[int(piece)].text
            found = [(token, is_answer) for token in _tokenize_plain(processor.tokenizer, text, names=names)]
        tokens += found if shown else []
        shown = shown or (number % 2 == 1 and int(piece) == after)
    return tokens


def _tokenize(tokenizer: Any, text: str) -> list[int]:
    """Token ids of trusted text, in which `<|im_end|>` and similar strings become special tokens."""
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids


def _token_names(tokenizer: Any) -> str:
    """A pattern that finds the name of any token that stands for more than its characters."""
    return "|".join(re.escape(token.content) for token in tokenizer.added_tokens_decoder.values())


def _tokenize_plain(tokenizer: Any, text: str, before: str = "", names: str = "") -> list[int]:
    """Token ids of untrusted text, in which `<|im_end|>`, `<think>` and similar strings stay plain characters.

    Each such string is split after its first character. `split_special_tokens` would not do: it keeps `<think>` and
    `<tool_call>`, which Qwen does not mark as special, and it is state of the tokenizer that threads share. `names` are
    the tokenizer's `_token_names`, for a caller with many texts.
    """
    text = before + without_surrogates(text.strip())
    cuts = [match.start() + 1 for match in re.finditer(f"(?={names or _token_names(tokenizer)})", text)]
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, None], strict=True)]
    return [token for piece in pieces for token in _tokenize(tokenizer, piece)]


def encode_answer(tokenizer: Any, text: str, num_masks: int, seg_token_id: int, places: Sequence[str] = ()) -> Tensor:
    """The supervised tokens (A,) int64: the answer's text, one ` <SEG>` per mask, the end of the turn.

    `places` are the words before each `<SEG>`, "" for none (`processing/places.py`). No other code puts `<SEG>` into an
    answer.
    """
    ids, seg = _tokenize_plain(tokenizer, text), [*_tokenize(tokenizer, " "), seg_token_id]
    for place in places or [""] * num_masks:
        ids += (_tokenize_plain(tokenizer, place, before=" ") if place else []) + seg
    return torch.tensor([*ids, tokenizer.eos_token_id])


def decode_answer(tokenizer: Any, token_ids: Sequence[int], seg_token: str) -> str:
    """Text of generated ids; `<SEG>` is kept, other special tokens are removed."""
    # Not `all_special_ids`: it lists only tokens with a role (end, padding, image), and `<|im_start|>` has none.
    hidden = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special and token.content != seg_token}
    kept = [token for token in token_ids if token not in hidden]
    return str(tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)).strip()


def rotary_positions(input_ids: Tensor, image_token_id: int, merged_grid: Tensor) -> Tensor:
    """Qwen's interleaved M-RoPE positions of a sequence with one image: (3, T) int64.

    Text advances in all three dimensions. Image tokens share one time step and carry their row and column. Text after
    the image continues after the largest position used (Qwen2-VL, arXiv:2409.12191, §2.1).

    Args:
        input_ids: (T,), the image tokens contiguous.
        merged_grid: (2,) rows and columns of image tokens.
    """
    rows, columns = (int(n) for n in merged_grid)
    is_image = input_ids == image_token_id
    start = int(is_image.int().argmax())
    num_image, length = rows * columns, len(input_ids)
    if int(is_image.sum()) != num_image:
        raise ValueError(f"{int(is_image.sum())} image tokens for an image of {rows}×{columns} tokens")
    positions = torch.arange(length).repeat(3, 1)  # (3, T)
    grid = torch.cartesian_prod(torch.zeros(1, dtype=torch.int64), torch.arange(rows), torch.arange(columns)).T
    positions[:, start : start + num_image] = start + grid
    positions[:, start + num_image :] += max(rows, columns) - num_image
    return positions
