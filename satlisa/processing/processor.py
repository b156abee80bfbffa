"""Encode a `Sample` as tensors."""

from bisect import bisect_right
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from satlisa.config import ModelConfig
from satlisa.data.images import fingerprint
from satlisa.data.sample import RowError, Sample
from satlisa.errors import SatlisaError
from satlisa.processing.chat import Prompt, encode_answer, encode_image, encode_later, render_prompt
from satlisa.processing.collator import Encoded
from satlisa.processing.places import describe_places, shorter_places
from satlisa.processing.sam_inputs import SamInputs
from satlisa.processing.shortening import answer_range, cut_answer, first_answers


def encode_sample(
    sample: Sample, processor: Any, sam_inputs: SamInputs, config: ModelConfig, *, is_alone: bool = False
) -> Encoded:
    """Encode one sample.

    Where a conversation is longer than `max_seq_length`, its answer says less about places than `instance_places`
    wants (`places`); where that is not enough, it loses its last answers, and the end of a text answer (`shortening`).

    Args:
        is_alone: it is the only one of its batch. Its image is then not hashed unless something is cached.

    Raises:
        RowError: an image that the processor cannot resize, or a sample whose question or `<SEG>` does not fit.
    """
    assert config.seg_token_id is not None
    try:
        image = encode_image(processor, sample.image)
    except SatlisaError as error:
        raise RowError(sample.index, "image", str(error)) from error
    text, shortened, places_cut = fit_text(sample, image, processor, config)
    prompt, answer_ids, (later_ids, later_answers) = text
    image_key = ""
    if sam_inputs.needs_keys or not is_alone:
        image_key = fingerprint(sample.image, sample.image_source)
    recalled = sam_inputs.recall(image_key) if sample.regions else None
    frame = sam_inputs.frame((sample.image.height, sample.image.width))
    shape = (len(sample.regions), sam_inputs.mask_size, sam_inputs.mask_size)
    targets = np.stack([frame.draw(region) for region in sample.regions]) if sample.regions else np.zeros(shape)
    return Encoded(
        index=sample.index,
        image_key=image_key,
        prompt=prompt,
        answer_ids=answer_ids,
        seg_places=(answer_ids == config.seg_token_id).nonzero()[:, 0],
        sam_pixels=sam_inputs.preprocess([sample.image])[0] if sample.regions and recalled is None else None,
        sam_recalled=recalled,
        mask_targets=torch.from_numpy(targets).float(),
        mask_valid=torch.from_numpy(frame.valid).expand(shape),
        later_ids=later_ids,
        later_answers=later_answers,
        shortened=shortened,
        places_cut=places_cut,
    )


class EncodedText(NamedTuple):
    """A conversation in tokens: prompt, answer (A,), and what comes after it (`encode_later`)."""

    prompt: Prompt
    answer: Tensor
    later: tuple[Tensor, Tensor]

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.prompt.input_ids) + len(self.answer) + len(self.later[0])


def _encode_text(
    processor: Any, image: tuple[Tensor, Tensor], config: ModelConfig, sample: Sample, kind: str
) -> EncodedText:
    prompt, places = render_prompt(processor, sample.turns, *image), describe_places(sample.regions, kind)
    answer = encode_answer(processor.tokenizer, sample.answer, len(places), config.seg_token_id or 0, places)
    return EncodedText(prompt, answer, encode_later(processor, sample))


def fit_text(
    sample: Sample, image: tuple[Tensor, Tensor], processor: Any, config: ModelConfig
) -> tuple[EncodedText, bool, bool]:
    """As much of a conversation as fits `max_seq_length`; whether that is less than all of it, and whether its places
    are less than what was wanted.

    Args:
        image: the outputs of `encode_image`, of which the text needs the grid alone.

    Raises:
        RowError: a question or a `<SEG>` does not fit.
    """
    encode = partial(_encode_text, processor, image, config)
    most, kinds = config.max_seq_length, shorter_places(sample, config.instance_places)
    for kind in kinds:
        whole = encode(sample, kind)
        if whole.length <= most:
            return whole, False, kind != kinds[0]
    places_cut = len(kinds) > 1
    fewest, count = answer_range(sample)

    def text_of(number: int) -> EncodedText:
        return whole if number == count else encode(first_answers(sample, number), "none")

    # How many answers fit, counted from the fewest; each takes a token and more
    fitting = bisect_right(range(fewest, min(count, fewest + most)), most, key=lambda number: text_of(number).length)
    if not sample.regions:  # of the answer that does not fit, the beginning
        text = text_of(fewest + fitting)
        if (room := most - len(text.prompt.input_ids)) > 0:
            return text._replace(answer=cut_answer(processor.tokenizer, text.answer, room)), True, False
    if fitting:
        return text_of(fewest + fitting - 1), True, places_cut
    reason = f"{whole.length} tokens, {len(whole.answer)} of them the answer's; max_seq_length is {most}"
    raise RowError(sample.index, "conversations", reason)
