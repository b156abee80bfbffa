"""Inference: image + prompt → generation → `<SEG>` states → masks.

Prompts are left-padded and decoded greedily in batches; finished rows leave the batch. The state at a `<SEG>` is the
hidden state of the decoding step that reads the token. It is kept during generation, so no second forward pass and no
hidden states of other layers or positions are needed. Each image is encoded once by the vision tower and once by SAM,
regardless of the number of prompts about it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import DynamicCache

from satlisa.config import DEFAULT_MAX_NEW_TOKENS
from satlisa.data.images import fingerprint
from satlisa.data.sample import Turn
from satlisa.errors import SatlisaError
from satlisa.model.satlisa import SatLisa
from satlisa.processing.chat import Prompt, as_turns, decode_answer, encode_image, render_prompt

_LONGEST = 8  # maximum prompt length, in multiples of max_seq_length


@dataclass(frozen=True)
class Answer:
    """An answer about one image.

    Attributes:
        text: the answer, with `<SEG>` and without other special tokens.
        masks: (N, H, W) bool at the image's original size, one per `<SEG>`, in order; N may be 0. With `only_union`
            (1, H, W) where N > 0.
        scores: (N,) float32, about 0 to 1: SAM's own guess at the IoU of each mask. No loss of this model trains
            the head behind it, so it is no estimate of the IoU (0.82 on average where the IoU was 0.49).
        token_ids: generated token ids without the end token.
        encoded: with `encode` or `encode_logits`, its result for each of the N masks.
    """

    text: str
    masks: np.ndarray
    scores: np.ndarray
    token_ids: list[int]
    encoded: tuple[Any, ...] = ()

    @property
    def num_segs(self) -> int:
        """Number of `<SEG>` tokens in the answer."""
        return len(self.scores)

    def union(self) -> np.ndarray | None:
        """(H, W) bool, the union of all masks; None without masks."""
        return np.asarray(self.masks.any(axis=0)) if len(self.masks) else None


@dataclass(frozen=True)
class Generated:
    """Token ids of one row without the end token, and the states (n, D) at its `<SEG>` tokens."""

    token_ids: list[int]
    seg_states: Tensor


@torch.inference_mode()
def answer(
    model: SatLisa,
    images: Sequence[Image.Image],
    prompts: Sequence[str | Sequence[Turn]],
    *,
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
    batch_size: int = 8,
    only_union: bool = False,
    encode: Callable[[np.ndarray], Any] | None = None,
    encode_logits: Callable[[np.ndarray], Any] | None = None,
) -> list[Answer]:
    """Answer prompts about images, in batches: one `Answer` per prompt, in order.

    Args:
        images: RGB, one per prompt.
        prompts: a question, or turns ending with the user's.
        max_new_tokens: maximum answer length; longer answers are truncated.
        batch_size: number of prompts decoded together.
        only_union: give each answer one mask, the union of all: 32 masks of a large image take half a gigabyte.
        encode: takes each mask (H, W) bool, of which a few at a time are in memory, also with `only_union`.
        encode_logits: the same with each mask's logits (H, W) float32; one of the two at most.

    Raises:
        SatlisaError: images and prompts differ in number, the processor rejects an image's size, or a prompt is too
            long.
    """
    if len(images) != len(prompts):
        raise SatlisaError(f"expected one image per prompt, found {len(images)} images and {len(prompts)} prompts")
    if max_new_tokens < 1:
        raise SatlisaError(f"max_new_tokens: expected at least 1, found {max_new_tokens}")
    encoded = encode_prompts(model.processor, images, prompts)
    check_lengths(model, encoded, max_new_tokens)
    # Sort by length, then by image: equal lengths need no padding, and prompts about one image share its features.
    first = {id(prompt.pixel_values): number for number, prompt in reversed(list(enumerate(encoded)))}
    order = sorted(range(len(encoded)), key=lambda n: (len(encoded[n].input_ids), first[id(encoded[n].pixel_values)]))
    answers: dict[int, Answer] = {}
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        asked = [encoded[number] for number in part]
        with model.autocast():
            rows = generate(model, asked, max_new_tokens)
            answers |= zip(
                part,
                _with_masks(model, [images[n] for n in part], asked, rows, only_union, encode, encode_logits),
                strict=True,
            )
    return [answers[number] for number in range(len(prompts))]


def check_lengths(model: SatLisa, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
    """Refuse prompts far longer than the training samples; one of them could exhaust memory for its whole batch.

    Raises:
        SatlisaError: a prompt exceeds `_LONGEST` × `max_seq_length` tokens, or the language model's positions.
    """
    room = model.qwen.config.text_config.max_position_embeddings
    if max_new_tokens >= room:
        raise SatlisaError(f"max_new_tokens: expected fewer than the model's {room} positions, found {max_new_tokens}")
    most = min(_LONGEST * model.config.max_seq_length, room - max_new_tokens)
    if (found := max((len(prompt.input_ids) for prompt in prompts), default=0)) > most:
        raise SatlisaError(
            f"expected a prompt of at most {most} tokens, the image's included, found {found}; shorten it"
        )


def encode_prompts(
    processor: Any, images: Sequence[Image.Image], prompts: Sequence[str | Sequence[Turn]]
) -> list[Prompt]:
    """Tokenize prompts. Equal images are processed once; their prompts share one `pixel_values` tensor."""
    distinct = {id(image): image for image in images}
    keys = {key: fingerprint(image) if len(distinct) > 1 else "" for key, image in distinct.items()}
    views = {keys[id(image)]: image for image in images}
    encoded = {key: encode_image(processor, image) for key, image in views.items()}
    return [
        render_prompt(processor, as_turns(prompt), *encoded[keys[id(image)]])
        for image, prompt in zip(images, prompts, strict=True)
    ]


def generate(model: SatLisa, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Generated]:
    """Greedy decoding of B prompts; equals `transformers`' `generate(do_sample=False)` token by token.

    Each step reads one token per row and keeps the states of `<SEG>` tokens. Finished rows are removed from the batch
    and the KV cache. If the last token is a `<SEG>`, one more step reads it to obtain its state.
    """
    device, ends = model.device, _end_tokens(model)
    input_ids, attention_mask, position_ids = (
        t.to(device) for t in _pad_left(prompts, model.processor.tokenizer.pad_token_id)
    )
    cache = DynamicCache(config=model.qwen.config.text_config)
    embeddings = model.embed(input_ids, _image_features(model, prompts))
    hidden = model.run_text(embeddings, attention_mask, position_ids, cache)[:, -1]  # (B, D)
    position_ids = position_ids.amax(dim=(0, 2), keepdim=True).expand(3, -1, 1)  # (3, B, 1), the last position used
    rows = list(range(len(prompts)))  # prompt index of each batch row
    token_ids: list[list[int]] = [[] for _ in prompts]
    seg_states: list[list[Tensor]] = [[] for _ in prompts]
    for step in range(1, max_new_tokens + 1):
        token = model.head.logits(hidden).argmax(dim=-1)  # (B,)
        chosen = token.tolist()  # the only device synchronization of a step
        for row, token_id in zip(rows, chosen, strict=True):
            if token_id not in ends:
                token_ids[row].append(token_id)
        is_last = step == max_new_tokens
        kept = [n for n, t in enumerate(chosen) if t == model.seg_token_id or (t not in ends and not is_last)]
        if not kept:
            break
        if len(kept) < len(rows):
            index = torch.tensor(kept, device=device)
            cache.reorder_cache(index)
            token, attention_mask, position_ids = token[index], attention_mask[index], position_ids[:, index]
            rows = [rows[n] for n in kept]
        attention_mask = torch.cat([attention_mask, attention_mask.new_ones(len(rows), 1)], dim=1)
        position_ids = position_ids + 1
        hidden = model.run_text(model.embed(token[:, None]), attention_mask, position_ids, cache)[:, 0]
        for place, row in enumerate(rows):
            if token_ids[row][-1] == model.seg_token_id:
                seg_states[row].append(hidden[place])
    empty = hidden.new_empty(0, hidden.shape[-1])
    return [
        Generated(ids, torch.stack(states) if states else empty)
        for ids, states in zip(token_ids, seg_states, strict=True)
    ]


def _image_features(model: SatLisa, prompts: Sequence[Prompt]) -> Tensor:
    """Image tokens of all prompts, concatenated; each distinct image is encoded once."""
    distinct = {id(prompt.pixel_values): prompt for prompt in prompts}
    numbers = {key: number for number, key in enumerate(distinct)}
    return model.image_features(
        torch.cat([prompt.pixel_values for prompt in distinct.values()]).to(model.device),
        torch.cat([prompt.image_grid_thw for prompt in distinct.values()]).to(model.device),
        [numbers[id(prompt.pixel_values)] for prompt in prompts],
    )


def _with_masks(
    model: SatLisa,
    images: Sequence[Image.Image],
    prompts: Sequence[Prompt],
    rows: Sequence[Generated],
    only_union: bool,
    encode: Callable[[np.ndarray], Any] | None,
    encode_logits: Callable[[np.ndarray], Any] | None,
) -> list[Answer]:
    """Decode all masks of a batch together; SAM encodes each distinct image that has a `<SEG>` once."""
    keys = [id(prompt.pixel_values) for prompt, row in zip(prompts, rows, strict=True) for _ in row.seg_states]
    distinct = dict.fromkeys(keys)
    mask_logits, scores = torch.empty(0), torch.empty(0)
    if keys:
        views = {id(prompt.pixel_values): image for prompt, image in zip(prompts, images, strict=True)}
        pixels = model.segmenter.inputs.preprocess([views[key] for key in distinct]).to(model.device)
        numbers = {key: number for number, key in enumerate(distinct)}
        mask_logits, scores = model.decode_masks(
            torch.cat([row.seg_states for row in rows]),
            model.segmenter.encode(pixels),
            torch.tensor([numbers[key] for key in keys], device=model.device),
        )
    answers, start = [], 0
    for image, row in zip(images, rows, strict=True):
        own = slice(start, start := start + len(row.seg_states))
        encoded: list[Any] = []
        visit, visit_logits = (partial(_append, encoded, e) if e else None for e in (encode, encode_logits))
        masks = model.segmenter.restore(
            mask_logits[own],
            (image.height, image.width),
            only_union=only_union,
            visit=visit,
            visit_logits=visit_logits,
        )
        text = decode_answer(model.processor.tokenizer, row.token_ids, model.config.seg_token)
        answers.append(Answer(text, masks, scores[own].float().cpu().numpy(), row.token_ids, tuple(encoded)))
    return answers


def _append(found: list[Any], encode: Callable[[np.ndarray], Any], mask: np.ndarray) -> None:
    found.append(encode(mask))


def _pad_left(prompts: Sequence[Prompt], pad_token_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """input_ids, attention_mask (B, T) and position_ids (3, B, T), left-padded to the longest prompt."""
    length = max(len(prompt.input_ids) for prompt in prompts)
    input_ids = torch.full((len(prompts), length), pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    position_ids = torch.zeros(3, *input_ids.shape, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        own = slice(length - len(prompt.input_ids), None)
        input_ids[row, own] = prompt.input_ids
        attention_mask[row, own] = 1
        position_ids[:, row, own] = prompt.position_ids
    return input_ids, attention_mask, position_ids


def _end_tokens(model: SatLisa) -> set[int]:
    """Ids of end tokens: the tokenizer's and those of the model's generation config."""
    configured = model.qwen.generation_config.eos_token_id
    ends: set[int] = {model.processor.tokenizer.eos_token_id}
    ends |= set(configured if isinstance(configured, list) else [configured]) - {None}
    return ends
