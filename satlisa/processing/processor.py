"""Encode a `Sample` as tensors."""

from typing import Any

import numpy as np
import torch

from satlisa.config import ModelConfig
from satlisa.data.images import fingerprint
from satlisa.data.sample import RowError, Sample
from satlisa.errors import SatlisaError
from satlisa.processing.chat import encode_answer, encode_prompt
from satlisa.processing.collator import Encoded
from satlisa.processing.sam_inputs import SamInputs


def encode_sample(
    sample: Sample, processor: Any, sam_inputs: SamInputs, config: ModelConfig, *, is_alone: bool = False
) -> Encoded:
    """Encode one sample.

    Args:
        is_alone: it is the only one of its batch. Its image is then not hashed unless embeddings are cached.

    Raises:
        RowError: an image that the processor cannot resize, or a sample longer than `max_seq_length`. Samples are never
            truncated: that could split the image tokens or drop a `<SEG>`.
    """
    assert config.seg_token_id is not None
    try:
        prompt = encode_prompt(processor, sample.turns, sample.image)
    except SatlisaError as error:
        raise RowError(sample.index, "image", str(error)) from error
    answer_ids = encode_answer(processor.tokenizer, sample.answer, len(sample.regions), config.seg_token_id)
    length = len(prompt.input_ids) + len(answer_ids)
    if length > config.max_seq_length:
        reason = f"{length} tokens, {len(answer_ids)} of them the answer's; max_seq_length is {config.max_seq_length}"
        raise RowError(sample.index, "conversations", reason)
    image_key = ""
    if sam_inputs.cache is not None or not is_alone:
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
    )
