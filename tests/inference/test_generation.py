"""Generation against transformers' own `generate` and SamModel; batches against single answers."""

from itertools import pairwise
from unittest import mock

import numpy as np
import pytest
import torch

from satlisa.errors import SatlisaError
from satlisa.inference.decoding import generate
from satlisa.inference.generation import answer, stream_answer
from satlisa.model.lm_head import LMHead
from satlisa.model.satlisa import SatLisa
from satlisa.processing.chat import as_turns, encode_prompt
from tests.helpers.model_fixtures import make_samples, picture

pytestmark = pytest.mark.integration


@pytest.fixture
def talkative(tiny_model: SatLisa) -> SatLisa:
    """A tiny model whose answers vary and hold `<SEG>`: its hidden states are amplified and spread."""
    torch.manual_seed(3)
    with torch.no_grad():
        tiny_model.qwen.get_input_embeddings().weight.normal_(std=1.0)
        tiny_model.seg_row.normal_(std=1.6)
        for name, parameter in tiny_model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    return tiny_model.eval()


def ask(model: SatLisa, count: int, max_new_tokens: int = 24, batch_size: int = 8, **options: bool) -> list:  # type: ignore[type-arg]
    samples = make_samples(count)
    return answer(
        model,
        [s.image for s in samples],
        [s.turns for s in samples],
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        **options,
    )


def test_the_fixture_talks(talkative: SatLisa) -> None:
    answers = ask(talkative, 12)
    assert len({tuple(a.token_ids) for a in answers}) > 6
    assert {a.num_segs for a in answers} > {0} and max(a.num_segs for a in answers) > 1


def test_tokens_equal_transformers_generate(talkative: SatLisa) -> None:
    """Batched and alone, against `generate(do_sample=False)` of the merged model with the `<SEG>` row in its matrix."""
    samples = make_samples(8)
    ours = ask(talkative, 8)
    processor = talkative.processor
    prompts = [encode_prompt(processor, as_turns(s.turns), s.image) for s in samples]
    merged = talkative.vlm.merge_and_unload().eval()
    with torch.no_grad():
        merged.get_input_embeddings().weight[talkative.seg_token_id] = talkative.seg_row
    for sample, prompt, found in zip(samples, prompts, ours, strict=True):
        theirs = merged.generate(
            input_ids=prompt.input_ids[None],
            attention_mask=torch.ones_like(prompt.input_ids)[None],
            mm_token_type_ids=(prompt.input_ids == processor.image_token_id).int()[None],
            pixel_values=prompt.pixel_values,
            image_grid_thw=prompt.image_grid_thw,
            max_new_tokens=24,
            do_sample=False,
        )[0, len(prompt.input_ids) :].tolist()
        ended = [i for i, token in enumerate(theirs) if token in (258, 256)]
        assert found.token_ids == (theirs[: ended[0]] if ended else theirs), sample.index


def test_batches_equal_single_answers(talkative: SatLisa) -> None:
    batched, single = ask(talkative, 12, batch_size=12), ask(talkative, 12, batch_size=1)
    for a, b in zip(batched, single, strict=True):
        assert a.token_ids == b.token_ids and a.text == b.text
        assert a.masks.shape == b.masks.shape and np.array_equal(a.masks, b.masks)
        np.testing.assert_allclose(a.scores, b.scores, rtol=1e-4, atol=1e-5)


def test_only_the_union(talkative: SatLisa) -> None:
    for a, b in zip(ask(talkative, 12), ask(talkative, 12, only_union=True), strict=True):
        assert (a.text, a.num_segs) == (b.text, b.num_segs) and len(b.masks) == min(a.num_segs, 1)
        one, other = a.union(), b.union()
        assert (one is None and other is None) or np.array_equal(one, other)  # type: ignore[arg-type]


def test_each_mask_is_encoded_also_where_only_the_union_is_kept(talkative: SatLisa) -> None:
    for a, b in zip(ask(talkative, 12), ask(talkative, 12, only_union=True, encode=np.count_nonzero), strict=True):
        assert a.encoded == () and b.encoded == tuple(map(np.count_nonzero, a.masks))


def test_seg_state_is_the_state_at_seg(talkative: SatLisa) -> None:
    """The states taken while generating equal those of one plain forward over prompt and answer."""
    sample, compared = make_samples(12), 0
    for number in range(12):
        prompt = encode_prompt(talkative.processor, as_turns(sample[number].turns), sample[number].image)
        with torch.no_grad():
            found = generate(talkative, [prompt], 24)[0]
            if not len(found.seg_states):
                continue
            ids = torch.cat([prompt.input_ids, torch.tensor(found.token_ids)])[None]
            start = int(prompt.position_ids.max()) + 1
            behind = torch.arange(start, start + len(found.token_ids)).expand(3, -1)
            positions = torch.cat([prompt.position_ids, behind], dim=1)[:, None]
            images = talkative.image_features(prompt.pixel_values, prompt.image_grid_thw)
            hidden = talkative.run_text(talkative.embed(ids, images), torch.ones_like(ids), positions)
        torch.testing.assert_close(found.seg_states, hidden[ids == talkative.seg_token_id], rtol=1e-4, atol=1e-4)
        compared += len(found.seg_states)
    assert compared > 3


def test_a_cut_answer_keeps_the_state_of_its_last_seg(talkative: SatLisa) -> None:
    """Cut right behind a `<SEG>` of the full answer, whose state takes one step more."""
    seg, full = talkative.seg_token_id, ask(talkative, 12)
    cuts = {a.token_ids.index(seg) + 1 for a in full if seg in a.token_ids}
    assert len(cuts) >= 1
    for cut in cuts:
        answers = ask(talkative, 12, max_new_tokens=cut)
        assert any(a.token_ids[cut - 1 :] == [seg] for a in answers)
        for a, whole in zip(answers, full, strict=True):
            assert a.token_ids == whole.token_ids[:cut]
            assert a.token_ids.count(seg) == len(a.masks) == len(a.scores)
            assert np.array_equal(a.masks, whole.masks[: len(a.masks)])


def test_a_row_that_ended_leaves_the_batch(talkative: SatLisa, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many rows each step of the language model runs over, with answers that end at known steps."""
    run_text, widths = talkative.run_text, []

    def count(embeddings: torch.Tensor, *arguments: object) -> torch.Tensor:
        widths.append(len(embeddings))
        return run_text(embeddings, *arguments)  # type: ignore[arg-type]

    ends = {number: 1 + number * 5 % 8 for number in range(8)}  # which step ends which row
    plain_logits, step, alive = LMHead.logits, 0, list(range(8))

    def end_rows(head: LMHead, hidden: torch.Tensor) -> torch.Tensor:
        nonlocal step, alive
        step += 1
        logits = plain_logits(head, hidden)
        logits[:, [256, 258]] = -torch.inf
        logits[:, talkative.seg_token_id] = -torch.inf
        logits[[ends[row] == step for row in alive], 258] = torch.inf
        alive = [row for row in alive if ends[row] != step]
        return logits

    monkeypatch.setattr(talkative, "run_text", count)
    monkeypatch.setattr(LMHead, "logits", end_rows)
    prompts = [encode_prompt(talkative.processor, as_turns(s.turns), s.image) for s in make_samples(8)]
    with torch.no_grad():
        found = generate(talkative, prompts, 24)
    assert [len(row.token_ids) for row in found] == [ends[number] - 1 for number in range(8)]
    assert widths == [8] + [sum(end > done for end in ends.values()) for done in range(1, 8)]


def test_an_image_is_looked_at_once(talkative: SatLisa, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many prompts about few images: patches in the vision tower, images in SAM; the answers stay the same."""
    images = [picture(64, 48, seed=1), picture(50, 64, seed=2)]
    asked = [images[0], images[1], images[0], images[0].copy(), images[1]]
    prompts = [f"What is it? {number}" for number in range(5)]
    single = [
        answer(talkative, [image], [prompt], max_new_tokens=24)[0] for image, prompt in zip(asked, prompts, strict=True)
    ]
    assert sum(a.num_segs > 0 for a in single) >= 2
    patches, encoded = [], []
    tower, encode = talkative.qwen.model.visual.forward, talkative.segmenter.encode
    monkeypatch.setattr(
        talkative.qwen.model.visual, "forward", lambda x, *a, **k: (patches.append(len(x)), tower(x, *a, **k))[1]
    )
    monkeypatch.setattr(talkative.segmenter, "encode", lambda x: (encoded.append(len(x)), encode(x))[1])
    together = answer(talkative, asked, prompts, max_new_tokens=24, batch_size=5)
    grids = [encode_prompt(talkative.processor, as_turns("?"), image).image_grid_thw.prod() for image in images]
    assert patches == [int(sum(grids))] and sum(encoded) <= 2
    for one, other in zip(single, together, strict=True):
        assert one.token_ids == other.token_ids and np.array_equal(one.masks, other.masks)


def test_masks_have_the_image_size(talkative: SatLisa) -> None:
    for sample, a in zip(make_samples(8), ask(talkative, 8), strict=True):
        assert a.masks.shape[1:] == (sample.image.height, sample.image.width) and a.masks.dtype == bool
        union = a.union()
        assert (union is None) == (len(a.masks) == 0)
        if union is not None:
            assert np.array_equal(union, np.logical_or.reduce(list(a.masks)))


def test_text_keeps_seg_and_no_other_special_token(talkative: SatLisa) -> None:
    for a in ask(talkative, 12):
        assert a.text.count("<SEG>") == a.num_segs
        assert "<|" not in a.text


def test_wrong_calls(tiny_model: SatLisa) -> None:
    with pytest.raises(SatlisaError, match="1 images and 2 prompts"):
        answer(tiny_model, [picture(8, 8)], ["a", "b"])
    for wrong in (0, -1, 2.5, True, None):
        with pytest.raises(SatlisaError, match=f"max_new_tokens: expected a whole number of at least 1, found {wrong}"):
            answer(tiny_model, [picture(64, 64)], ["a"], max_new_tokens=wrong)  # type: ignore[arg-type]


def test_a_prompt_that_is_far_too_long(tiny_model: SatLisa) -> None:
    """4,096 tokens are the room of the tiny model, and eight training samples."""
    image = picture(64, 48)
    with pytest.raises(SatlisaError, match=r"at most 4072 tokens, the image's included, found \d{5,}; shorten it"):
        answer(tiny_model, [image, image], ["What is it?", "word " * 20_000], max_new_tokens=24)
    tiny_model.config.max_seq_length = 60
    with pytest.raises(SatlisaError, match=r"at most 480 tokens"):
        answer(tiny_model, [image], ["word " * 500], max_new_tokens=1)


def test_a_stream_is_the_answer_as_it_grows(talkative: SatLisa) -> None:
    for sample, whole in zip(make_samples(4), ask(talkative, 4, batch_size=1), strict=True):
        stream = stream_answer(talkative, sample.image, sample.turns, max_new_tokens=24)
        texts = []
        while True:
            try:
                texts.append(next(stream))
            except StopIteration as end:
                found = end.value
                break
            assert not torch.is_inference_mode_enabled()  # the caller's turn
        assert len(texts) > 3 and all(b.startswith(a) and b != a for a, b in pairwise(texts))
        assert texts[-1] == found.text == whole.text and found.token_ids == whole.token_ids
        assert np.array_equal(found.masks, whole.masks) and np.array_equal(found.scores, whole.scores)


def test_a_stream_can_be_left_at_any_time(talkative: SatLisa) -> None:
    """Also by Ctrl-C within a step; the next answer is the same as ever."""
    sample = make_samples(1)[0]
    whole = ask(talkative, 1)[0]
    stream = stream_answer(talkative, sample.image, sample.turns, max_new_tokens=24)
    next(stream)
    stream.close()
    stream = stream_answer(talkative, sample.image, sample.turns, max_new_tokens=24)
    next(stream)
    with mock.patch.object(SatLisa, "run_text", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        next(stream)
    assert not torch.is_inference_mode_enabled() and ask(talkative, 1)[0].token_ids == whole.token_ids


def test_a_stream_without_masks_runs_no_sam(talkative: SatLisa) -> None:
    sample = next(s for s, a in zip(make_samples(12), ask(talkative, 12), strict=True) if a.num_segs)
    with mock.patch.object(type(talkative.segmenter), "encode", side_effect=AssertionError("SAM was run")):
        texts = list(stream_answer(talkative, sample.image, sample.turns, max_new_tokens=24, with_masks=False))
    assert "<SEG>" in texts[-1]
