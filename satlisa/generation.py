"""The one way to an answer: image + prompt → generation → `<SEG>` states → masks.

Prompts are padded left and decoded together, greedily. The state at a `<SEG>` is the hidden state of the step that
reads the token, so it is taken while generating: no second forward, no hidden states of other layers or positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import DynamicCache

from satlisa.errors import SatlisaError
from satlisa.model import SatLisa
from satlisa.prompts import Prompt, as_turns, decode_answer, encode_prompt
from satlisa.sample import Turn


@dataclass(frozen=True)
class Answer:
    """An answer about one image.

    Attributes:
        text: the answer, `<SEG>` kept, other special tokens left out.
        masks: (N, H, W) bool at the image's own size, one per `<SEG>`, in their order; N may be 0.
        scores: (N,) float32, SAM's predicted IoU of each mask.
        token_ids: the generated ids without the end token.
    """

    text: str
    masks: np.ndarray
    scores: np.ndarray
    token_ids: list[int]

    @property
    def num_segs(self) -> int:
        """`<SEG>` tokens in the answer."""
        return len(self.masks)

    def union(self) -> np.ndarray | None:
        """(H, W) bool, what any of the masks covers; None without masks."""
        return np.asarray(self.masks.any(axis=0)) if len(self.masks) else None


@dataclass(frozen=True)
class Generated:
    """Ids of one row without the end token, and the state at each of its `<SEG>` (n, D)."""

    token_ids: list[int]
    seg_states: Tensor


@torch.inference_mode()
def answer(
    model: SatLisa,
    images: Sequence[Image.Image],
    prompts: Sequence[str | Sequence[Turn]],
    *,
    max_new_tokens: int = 256,
    batch_size: int = 8,
) -> list[Answer]:
    """Answer prompts about images, in batches.

    Args:
        images: RGB, one per prompt.
        prompts: a question, or turns that end with the user's.
        max_new_tokens: longest answer; a longer one is cut there.
        batch_size: prompts that are generated together.

    Returns:
        One `Answer` per prompt, in order.
    """
    if len(images) != len(prompts):
        raise SatlisaError(f"expected one image per prompt, found {len(images)} images and {len(prompts)} prompts")
    if max_new_tokens < 1:
        raise SatlisaError(f"max_new_tokens: expected at least 1, found {max_new_tokens}")
    answers: list[Answer] = []
    for start in range(0, len(prompts), batch_size):
        part = images[start : start + batch_size]
        encoded = [
            encode_prompt(model.processor, as_turns(prompt), image)
            for image, prompt in zip(part, prompts[start : start + batch_size], strict=True)
        ]
        with model.autocast():
            answers += _with_masks(model, part, generate(model, encoded, max_new_tokens))
    return answers


def generate(model: SatLisa, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Generated]:
    """Greedy decoding of B prompts; equals `transformers`' `generate(do_sample=False)` token by token.

    Each step reads one token per row and keeps the rows' `<SEG>` states. A row that ended reads padding until all
    have; the loop goes one step past the last token where that is a `<SEG>`, to have its state.
    """
    device, pad, ends = model.device, model.processor.tokenizer.pad_token_id, _end_tokens(model)
    input_ids, attention_mask, position_ids = (t.to(device) for t in _pad_left(prompts, pad))
    images = model.image_features(
        torch.cat([p.pixel_values for p in prompts]).to(device),
        torch.cat([p.image_grid_thw for p in prompts]).to(device),
    )
    cache = DynamicCache(config=model.qwen.config.text_config)
    hidden = model.run_text(model.embed(input_ids, images), attention_mask, position_ids, cache)[:, -1]  # (B, D)
    position_ids = position_ids.amax(dim=(0, 2), keepdim=True).expand(3, -1, 1)  # (3, B, 1), the last one used
    finished = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    tokens: list[Tensor] = []
    states: list[Tensor] = []  # states[t] (B, D) is the hidden state that read tokens[t]
    while True:
        token = torch.where(finished, pad, model.token_logits(hidden).argmax(dim=-1))  # (B,)
        finished = finished | torch.isin(token, ends)
        tokens.append(token)
        is_seg = token == model.seg_token_id
        if finished.all() or (len(tokens) == max_new_tokens and not is_seg.any()):
            break
        attention_mask = torch.cat([attention_mask, attention_mask.new_ones(len(prompts), 1)], dim=1)
        position_ids = position_ids + 1
        hidden = model.run_text(model.embed(token[:, None]), attention_mask, position_ids, cache)[:, 0]
        states.append(hidden)
        if len(tokens) == max_new_tokens:
            break
    return _split_rows(tokens, states, model.seg_token_id, ends)


def _split_rows(tokens: list[Tensor], states: list[Tensor], seg_token_id: int, ends: Tensor) -> list[Generated]:
    """Rows of a generated batch, each up to its end token."""
    all_ids = torch.stack(tokens, dim=1)  # (B, steps)
    rows = []
    for row, ids in enumerate(all_ids):
        ended = torch.isin(ids, ends).nonzero()
        ids = ids[: int(ended[0])] if len(ended) else ids
        steps = (ids == seg_token_id).nonzero()[:, 0].tolist()
        seg_states = torch.stack([states[step][row] for step in steps]) if steps else all_ids.new_empty(0)
        rows.append(Generated(ids.tolist(), seg_states))
    return rows


def _with_masks(model: SatLisa, images: Sequence[Image.Image], rows: Sequence[Generated]) -> list[Answer]:
    """Decode the masks of a whole batch together; images without `<SEG>` see no SAM."""
    with_seg = [number for number, row in enumerate(rows) if len(row.seg_states)]
    mask_logits, scores = torch.empty(0), torch.empty(0)
    if with_seg:
        pixels = model.segmenter.preprocess([images[number] for number in with_seg]).to(model.device)
        counts = torch.tensor([len(rows[number].seg_states) for number in with_seg], device=model.device)
        mask_logits, scores = model.decode_masks(
            torch.cat([rows[number].seg_states for number in with_seg]),
            model.segmenter.encode(pixels),
            torch.arange(len(with_seg), device=model.device).repeat_interleave(counts),
        )
    answers, start = [], 0
    for image, row in zip(images, rows, strict=True):
        own = slice(start, start := start + len(row.seg_states))
        masks = model.segmenter.restore(mask_logits[own], (image.height, image.width))
        text = decode_answer(model.processor.tokenizer, row.token_ids, model.config.seg_token)
        answers.append(Answer(text, masks, scores[own].float().cpu().numpy(), row.token_ids))
    return answers


def _pad_left(prompts: Sequence[Prompt], pad_token_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """input_ids, attention_mask (B, T) and position_ids (3, B, T), padded left to the longest prompt."""
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


def _end_tokens(model: SatLisa) -> Tensor:
    """Ids that end an answer: the tokenizer's and those of the model's generation config."""
    configured = model.qwen.generation_config.eos_token_id
    ends = {model.processor.tokenizer.eos_token_id}
    ends |= set(configured if isinstance(configured, list) else [configured]) - {None}
    return torch.tensor(sorted(ends), device=model.device)
