"""Conversations that are too long: what is cut, where, and that no end is taught there."""

import json
import re
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from satlisa.config import ModelConfig
from satlisa.data.sample import RowError, Sample, Turn
from satlisa.model.satlisa import SatLisa
from satlisa.processing.chat import count_tokens, decode_answer
from satlisa.processing.collator import Encoded, collate
from satlisa.processing.processor import encode_sample
from satlisa.processing.shortening import cut_answer
from tests.helpers.model_fixtures import make_samples

BOXES = [{"label": "ship, small", "box": [100 + 10 * n, 200, 150 + 10 * n, 260]} for n in range(9)]
LISTS = {
    "objects": json.dumps(BOXES),
    "objects under a key": json.dumps({"objects": BOXES, "count": len(BOXES)}),
    "boxes": json.dumps([box["box"] for box in BOXES]),
    "boxes in words": ", ".join(f"ship {box['box']}" for box in BOXES),
    "lines": "\n".join(f"- ship {n}, heading north" for n in range(9)),
    "values": json.dumps(["ship", "a [strange] one", "harbour, old", "pier"] * 3),
}
LISTS["compact"] = json.dumps(BOXES, separators=(",", ":"))
LISTS["tags"] = "".join(f"<ref>ship</ref><box>({n},200),({n + 5},260)</box>" for n in range(9))
ENDS = dict(zip(LISTS, ("}", "}", "]", "]", "north", '"', "}", ">"), strict=True))


def tokens(model: SatLisa, text: str) -> torch.Tensor:
    ids = model.processor.tokenizer(text, add_special_tokens=False).input_ids
    return torch.tensor([*ids, model.processor.tokenizer.eos_token_id])


def text_of(model: SatLisa, ids: torch.Tensor) -> str:
    return decode_answer(model.processor.tokenizer, ids.tolist(), "<SEG>")


@pytest.mark.parametrize("name", LISTS)
def test_a_list_ends_behind_a_whole_item(tiny_model: SatLisa, name: str) -> None:
    whole = tokens(tiny_model, LISTS[name])
    seen = set()
    for room in range(1, len(whole) - 1):
        cut = cut_answer(tiny_model.processor.tokenizer, whole, room)
        text = text_of(tiny_model, cut)
        assert 0 < len(cut) <= room and torch.equal(cut, whole[: len(cut)])
        assert tiny_model.processor.tokenizer.eos_token_id not in cut.tolist()
        assert len(cut) > room // 2
        if len(cut) < room:  # not simply the last token that fits
            seen.add(text)
            assert re.sub(r"""[\s,]*[\[{("'<]*$""", "", text).endswith(ENDS[name]), text
            assert LISTS[name].startswith(text)
    assert len(seen) >= 3


def test_another_text_ends_at_the_last_token(tiny_model: SatLisa) -> None:
    whole = tokens(tiny_model, "A long description of a harbour (with ships) and of what lies behind it. " * 5)
    for room in (1, 7, 50):
        assert torch.equal(cut_answer(tiny_model.processor.tokenizer, whole, room), whole[:room])


@pytest.mark.parametrize("start", ["Seen:\n", "Seen [roads, houses] here. ", "A town (north) and a port (south). "])
def test_a_text_that_only_begins_like_a_list_keeps_its_length(tiny_model: SatLisa, start: str) -> None:
    whole = tokens(tiny_model, start + "There is a long road to the harbour and a river beside it. " * 9)
    assert len(cut_answer(tiny_model.processor.tokenizer, whole, 150)) == 150


def sample_of(*texts: str, regions: bool = False) -> Sample:
    """A conversation of questions and answers; the first answer is that of the masks, if there are any."""
    turns = [Turn(("user", "assistant")[n % 2], text) for n, text in enumerate(texts)]
    made = make_samples(2)[0 if make_samples(1)[0].regions else 1]
    if regions:
        return replace(made, index=4, turns=tuple(turns[:1]), answer=turns[1].text, later=tuple(turns[2:]))
    return replace(made, index=4, turns=tuple(turns[:-1]), answer=turns[-1].text, later=(), regions=())


def encode_within(model: SatLisa, sample: Sample, most: int) -> Encoded:
    config: ModelConfig = replace(model.config, max_seq_length=most, max_image_tokens=8)
    return encode_sample(sample, model.processor, model.segmenter.inputs, config)


def targets(model: SatLisa, encoded: Encoded) -> str:
    batch = collate([encoded], model.processor.tokenizer.pad_token_id)
    return str(model.processor.tokenizer.decode(batch.targets))


@pytest.mark.parametrize("missing", [1, 2, 40])
def test_a_long_answer_is_cut_and_taught_without_an_end(tiny_model: SatLisa, missing: int) -> None:
    sample = sample_of("List the ships.", LISTS["boxes"])
    whole = encode_within(tiny_model, sample, 10_000)
    cut = encode_within(tiny_model, sample, whole.length - missing)
    assert (whole.shortened, cut.shortened) == (False, True)
    assert cut.length <= whole.length - missing and torch.equal(cut.prompt.input_ids, whole.prompt.input_ids)
    assert torch.equal(cut.answer_ids, whole.answer_ids[: len(cut.answer_ids)])
    end = tiny_model.processor.tokenizer.eos_token_id
    assert whole.answer_ids.tolist().count(end) == 1 and end not in cut.answer_ids.tolist()
    assert sample.answer.startswith(targets(tiny_model, cut))
    tiny_model(collate([cut], 0)).losses.text.backward()


def test_later_questions_and_answers_go_first(tiny_model: SatLisa) -> None:
    """Whole answers keep their end; of the first one that does not fit, the beginning stays."""
    sample = sample_of("What?", "A road.", "Where?", "In the north.", "How wide?", "Nine metres.")
    whole = encode_within(tiny_model, sample, 10_000)
    end = tiny_model.processor.tokenizer.eos_token
    assert targets(tiny_model, whole) == f"A road.{end}In the north.{end}Nine metres.{end}"
    found = [targets(tiny_model, encode_within(tiny_model, sample, whole.length - n)) for n in range(1, 30)]
    assert all(len(text) >= len(later) for text, later in pairwise(found))
    assert all(f"A road.{end}In the north.{end}Nine metres.".startswith(text) for text in found)
    assert f"A road.{end}In the north.{end}" in found or f"A road.{end}In the north." in found


def test_masks_are_never_cut(tiny_model: SatLisa) -> None:
    """What comes after them may go; where they do not fit themselves, the row is skipped."""
    sample = sample_of("Segment it.", "Here it is.", "What is it?", "A road.", regions=True)
    whole = encode_within(tiny_model, sample, 10_000)
    alone = encode_within(tiny_model, replace(sample, later=()), 10_000)
    assert len(whole.seg_places) == len(sample.regions) > 0
    cut = encode_within(tiny_model, sample, whole.length - 1)
    assert cut.shortened and torch.equal(cut.answer_ids, alone.answer_ids) and len(cut.later_ids) == 0
    assert torch.equal(cut.seg_places, whole.seg_places)
    with pytest.raises(RowError, match=rf"row 4: `conversations` {whole.length} tokens, .*{alone.length - 1}"):
        encode_within(tiny_model, sample, alone.length - 1)


def test_a_question_that_does_not_fit_is_skipped(tiny_model: SatLisa) -> None:
    sample = sample_of("What is this? " * 30, "A road.")
    whole = encode_within(tiny_model, sample, 10_000)
    assert encode_within(tiny_model, sample, len(whole.prompt.input_ids) + 1).length == len(whole.prompt.input_ids) + 1
    with pytest.raises(RowError, match="max_seq_length is"):
        encode_within(tiny_model, sample, len(whole.prompt.input_ids))


def test_lengths_are_counted_without_the_image(tiny_model: SatLisa) -> None:
    for texts in (("What?", "A road."), ("What?", "A road.", "Where?", "In the north.")):
        whole = encode_within(tiny_model, sample_of(*texts), 10_000)
        image = int((whole.prompt.input_ids == tiny_model.processor.image_token_id).sum())
        turns = [Turn(("user", "assistant")[n % 2], text) for n, text in enumerate(texts)]
        assert count_tokens(tiny_model.processor, turns, image) == whole.length
