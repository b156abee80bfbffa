"""A sample as tensors."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from satlisa.data.sample import RowError, Turn
from satlisa.data.sampler import IndexedSampler
from satlisa.model.satlisa import SatLisa
from satlisa.processing.chat import encode_prompt
from satlisa.processing.processor import encode_sample
from satlisa.training.loader import RowEncoder, StepLoader
from tests.helpers.model_fixtures import batch_of, box, encode, make_samples, picture


def test_regions_become_masks_and_seg_tokens(tiny_model: SatLisa) -> None:
    """A square image fills the mask frame of 32×32: boxes on whole pixels are exact."""
    regions = (box(0.25, 0.0, 0.5, 1.0), box(0.0, 0.5, 1.0, 0.75))
    encoded = encode(tiny_model, replace(make_samples(2)[1], image=picture(64, 64), regions=regions))
    expected = torch.zeros(2, 32, 32)
    expected[0, :, 8:16] = 1
    expected[1, 16:24] = 1
    assert torch.equal(encoded.mask_targets, expected) and encoded.mask_valid.all()
    assert encoded.seg_places.tolist() == (encoded.answer_ids == 263).nonzero()[:, 0].tolist()
    assert len(encoded.seg_places) == 2 and encoded.sam_pixels is not None


def test_a_text_sample_has_nothing_for_sam(tiny_model: SatLisa) -> None:
    encoded = encode(tiny_model, replace(make_samples(1)[0], regions=()))
    assert encoded.sam_pixels is None and encoded.mask_targets.shape == (0, 32, 32) and len(encoded.seg_places) == 0


def test_a_mask_sample_that_is_too_long_is_refused_uncut(tiny_model: SatLisa) -> None:
    sample = replace(make_samples(1)[0], index=7, answer="word " * 60, regions=make_samples(2)[1].regions)
    length = encode(tiny_model, sample).length
    config = replace(tiny_model.config, max_seq_length=length)
    assert encode_sample(sample, tiny_model.processor, tiny_model.segmenter.inputs, config).length == length
    config = replace(tiny_model.config, max_seq_length=length - 1)
    with pytest.raises(RowError, match=rf"row 7: `conversations` {length} tokens, .*max_seq_length is {length - 1}"):
        encode_sample(sample, tiny_model.processor, tiny_model.segmenter.inputs, config)


def test_every_answer_is_supervised(tiny_model: SatLisa) -> None:
    """Text rows: with the end of each answer, and nothing of the questions."""
    turns = (Turn("user", "What?"), Turn("assistant", "A road."), Turn("user", "Where?"))
    sample = replace(make_samples(1)[0], turns=turns, answer="North.", regions=())
    batch = batch_of(tiny_model, [sample])
    tokenizer = tiny_model.processor.tokenizer
    assert tokenizer.decode(batch.targets) == "A road.<|im_end|>North.<|im_end|>"
    assert batch.targets.tolist() == batch.input_ids[0][batch.supervised + 1].tolist()
    asked = encode_prompt(tiny_model.processor, turns, sample.image).input_ids
    assert batch.input_ids[0, : len(asked)].tolist() == asked.tolist()  # as in inference


def test_the_mask_may_belong_to_an_earlier_answer(tiny_model: SatLisa) -> None:
    later = (Turn("user", "How many?"), Turn("assistant", "Two."), Turn("user", "Sure?"), Turn("assistant", "Yes."))
    mask = make_samples(2)[1]
    sample = replace(mask, turns=(Turn("user", "Segment"),), answer="Here", later=later)
    batch = batch_of(tiny_model, [mask, sample])
    tokenizer = tiny_model.processor.tokenizer
    alone = len(batch_of(tiny_model, [mask]).targets)
    assert tokenizer.decode(batch.targets[alone:]) == "Here <SEG><|im_end|>Two.<|im_end|>Yes.<|im_end|>"
    ids = batch.input_ids.flatten()
    assert batch.targets.tolist() == ids[batch.supervised + 1].tolist()
    assert batch.seg_positions.tolist() == (ids == tiny_model.seg_token_id).nonzero()[:, 0].tolist()
    ending = "Sure?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\nYes.<|im_end|>"
    assert tokenizer.decode(batch.input_ids[1][batch.attention_mask[1].bool()]).endswith(ending)
    encoded = encode(tiny_model, sample)
    assert encoded.length == len(encoded.input_ids) == int(batch.attention_mask[1].sum())


def test_a_greeting_is_no_answer(tiny_model: SatLisa) -> None:
    turns = (Turn("assistant", "Hello."), Turn("user", "What?"))
    batch = batch_of(tiny_model, [replace(make_samples(1)[0], turns=turns, answer="A road.", regions=())])
    assert tiny_model.processor.tokenizer.decode(batch.targets) == "A road.<|im_end|>"


def test_images_are_hashed_only_where_something_asks(tiny_model: SatLisa, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of the row's image where it has any, never all pixels of a large one."""
    hashed: list[tuple[object, ...]] = []
    monkeypatch.setattr("satlisa.processing.processor.fingerprint", lambda *given: hashed.append(given) or "key")
    sample = replace(make_samples(2)[1], image_source={"bytes": b"encoded", "path": None})
    inputs = tiny_model.segmenter.inputs

    def key(**options: bool) -> str:
        return encode_sample(sample, tiny_model.processor, inputs, tiny_model.config, **options).image_key

    assert key(is_alone=True) == "" and hashed == []
    assert key() == "key" and hashed == [(sample.image, sample.image_source)]
    inputs.cache = SimpleNamespace(load=lambda _: None)  # type: ignore[assignment]
    assert key(is_alone=True) == "key"
    inputs.cache, inputs.in_memory = None, True
    assert key(is_alone=True) == "key"
    assert encode(tiny_model, make_samples(1)[0]).image_key == "key" and hashed[-1][1] is None


def test_a_loader_of_single_samples_does_not_hash(tiny_model: SatLisa) -> None:
    encoder = RowEncoder(tiny_model.processor, tiny_model.segmenter.inputs, tiny_model.config)
    assert StepLoader(IndexedSampler([]), encoder, 4, 1).encoder.is_alone
    assert not StepLoader(IndexedSampler([]), encoder, 4, 2).encoder.is_alone
