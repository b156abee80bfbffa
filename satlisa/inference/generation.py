"""Inference: image + prompt → generation → `<SEG>` states → masks.

Prompts are decoded in batches (`decoding`). Each image is encoded once by the vision tower and once by SAM, regardless
of the number of prompts about it. `stream_answer` gives one answer's text as it grows.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from satlisa.config import DEFAULT_MAX_NEW_TOKENS
from satlisa.data.images import fingerprint
from satlisa.data.sample import Turn
from satlisa.errors import SatlisaError
from satlisa.inference.decoding import GREEDY, Decoding, Generated, Sampling, generate
from satlisa.inference.display import answer_html, answer_picture
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
        image: RGB, on whose pixels the masks lie, for notebooks to show; None where the answer is one of many.
    """

    text: str
    masks: np.ndarray
    scores: np.ndarray
    token_ids: list[int]
    encoded: tuple[Any, ...] = ()
    image: Image.Image | None = field(default=None, repr=False, compare=False)

    @property
    def num_segs(self) -> int:
        """Number of `<SEG>` tokens in the answer."""
        return len(self.scores)

    def union(self) -> np.ndarray | None:
        """(H, W) bool, the union of all masks; None without masks."""
        return np.asarray(self.masks.any(axis=0)) if len(self.masks) else None

    def _repr_png_(self) -> bytes | None:
        """For notebooks: the image with each mask in its own colour."""
        return None if self.image is None else answer_picture(self.image, self.masks)

    def _repr_html_(self) -> str:
        """For notebooks: the same picture, the text under it."""
        return answer_html(self._repr_png_(), self.text, self.scores)


@torch.inference_mode()
def answer(
    model: SatLisa,
    images: Sequence[Image.Image],
    prompts: Sequence[str | Sequence[Turn]],
    *,
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
    batch_size: int = 8,
    sampling: Sampling = GREEDY,
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
        sampling: greedy by default.
        only_union: give each answer one mask, the union of all: 32 masks of a large image take half a gigabyte.
        encode: takes each mask (H, W) bool, of which a few at a time are in memory, also with `only_union`.
        encode_logits: the same with each mask's logits (H, W) float32; one of the two at most.

    Raises:
        SatlisaError: images and prompts differ in number, the processor rejects an image's size, or a prompt is too
            long.
    """
    if len(images) != len(prompts):
        raise SatlisaError(f"expected one image per prompt, found {len(images)} images and {len(prompts)} prompts")
    encoded = _encode_checked(model, images, prompts, max_new_tokens)
    # Sort by length, then by image: equal lengths need no padding, and prompts about one image share its features.
    first = {id(prompt.pixel_values): number for number, prompt in reversed(list(enumerate(encoded)))}
    order = sorted(range(len(encoded)), key=lambda n: (len(encoded[n].input_ids), first[id(encoded[n].pixel_values)]))
    answers: dict[int, Answer] = {}
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        asked = [encoded[number] for number in part]
        with model.autocast():
            rows = generate(model, asked, max_new_tokens, sampling)
            answers |= zip(
                part,
                _with_masks(model, [images[n] for n in part], asked, rows, only_union, encode, encode_logits),
                strict=True,
            )
    return [answers[number] for number in range(len(prompts))]


def stream_answer(
    model: SatLisa,
    image: Image.Image,
    prompt: str | Sequence[Turn],
    *,
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
    sampling: Sampling = GREEDY,
    with_masks: bool = True,
) -> Generator[str, None, Answer]:
    """Answer one prompt step by step: yields the text so far each time that it has grown, returns the `Answer`.

    The texts and the answer are those of `answer`. Whoever stops iterating stops the decoding; the model can be asked
    again at once.

    Args:
        image: RGB.
        with_masks: False returns the answer without masks, and SAM is not run.

    Raises:
        SatlisaError: as `answer`, at the first step.
    """
    asked = _encode_checked(model, [image], [prompt], max_new_tokens)
    # Inference mode and autocast belong to the thread: neither may stay on while the caller has its turn.
    with torch.inference_mode(), model.autocast():
        decoding = Decoding(model, asked, max_new_tokens, sampling)
    shown, goes_on = "", True
    while goes_on:
        with torch.inference_mode(), model.autocast():
            goes_on = decoding.step()
        text = decode_answer(model.processor.tokenizer, decoding.token_ids[0], model.config.seg_token)
        if goes_on:
            text = text.rstrip("\ufffd")  # the first bytes of a letter whose last are in the next token
        if text != shown:
            shown = text
            yield text
    with torch.inference_mode(), model.autocast():
        rows = decoding.found()
        if not with_masks:
            return Answer(shown, np.zeros((0, image.height, image.width), bool), np.zeros(0, "f4"), rows[0].token_ids)
        return _with_masks(model, [image], asked, rows, False, None, None)[0]


def _encode_checked(
    model: SatLisa, images: Sequence[Image.Image], prompts: Sequence[str | Sequence[Turn]], max_new_tokens: int
) -> list[Prompt]:
    is_whole = isinstance(max_new_tokens, int | np.integer) and not isinstance(max_new_tokens, bool)
    if not is_whole or max_new_tokens < 1:
        raise SatlisaError(f"max_new_tokens: expected a whole number of at least 1, found {max_new_tokens!r}")
    encoded = encode_prompts(model.processor, images, prompts)
    check_lengths(model, encoded, max_new_tokens)
    return encoded


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
