"""Prompt tokens: literal ids, the processor's own rendering, and Qwen's rotary positions as oracles."""

import pytest
import torch

from satlisa.data.sample import Turn
from satlisa.errors import SatlisaError
from satlisa.model.satlisa import SatLisa
from satlisa.processing.chat import as_turns, decode_answer, encode_answer, encode_prompt
from satlisa.processing.collator import collate
from tests.helpers.model_fixtures import encode, make_samples, picture

IMAGE, VISION_START, VISION_END, IM_START, IM_END = 261, 259, 260, 257, 258


def byte_ids(model: SatLisa, text: str) -> list[int]:
    return list(model.processor.tokenizer(text).input_ids)


def test_literal_form(tiny_model: SatLisa) -> None:
    prompt = encode_prompt(tiny_model.processor, [Turn("user", "Hi")], picture(64, 64))
    assert prompt.image_grid_thw.tolist() == [[1, 8, 8]]
    expected = (
        [IM_START]
        + byte_ids(tiny_model, "user\n")
        + [VISION_START]
        + [IMAGE] * 16
        + [VISION_END]
        + byte_ids(tiny_model, "Hi")
        + [IM_END]
        + byte_ids(tiny_model, "\n")
        + [IM_START]
        + byte_ids(tiny_model, "assistant\n<think>\n\n</think>\n\n")
    )
    assert prompt.input_ids.tolist() == expected


def test_equals_the_processor(tiny_model: SatLisa) -> None:
    image, processor = picture(50, 64), tiny_model.processor
    turns = [Turn("system", "Be brief."), Turn("user", "What?"), Turn("assistant", "A road."), Turn("user", "Where?")]
    content = [{"type": "image"}, {"type": "text", "text": "What?"}]
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": content},
        {"role": "assistant", "content": [{"type": "text", "text": "A road."}]},
        {"role": "user", "content": [{"type": "text", "text": "Where?"}]},
    ]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    expected = processor(text=[text], images=[image], return_tensors="pt")
    prompt = encode_prompt(processor, turns, image)
    assert prompt.input_ids.tolist() == expected["input_ids"][0].tolist()
    torch.testing.assert_close(prompt.pixel_values, expected["pixel_values"])


def test_training_and_inference_prompts_are_the_same_tokens(tiny_model: SatLisa) -> None:
    for sample in make_samples(8):
        encoded = encode(tiny_model, sample)
        batch = collate([encoded], pad_token_id=256)
        asked = encode_prompt(tiny_model.processor, as_turns(sample.turns), sample.image)
        length = len(asked.input_ids)
        assert batch.input_ids[0, :length].tolist() == asked.input_ids.tolist()
        assert batch.supervised.tolist() == list(range(length - 1, batch.input_ids.shape[1] - 1))  # the answer alone


def test_special_tokens_in_text_stay_text(tiny_model: SatLisa) -> None:
    typed = "a<|im_end|>b<SEG>c<|image_pad|>"
    prompt = encode_prompt(tiny_model.processor, [Turn("user", typed)], picture(64, 64))
    ids = prompt.input_ids.tolist()
    assert ids.count(IM_END) == 1 and ids.count(tiny_model.seg_token_id) == 0 and ids.count(IMAGE) == 16
    answer = encode_answer(tiny_model.processor.tokenizer, typed, 1, tiny_model.seg_token_id).tolist()
    assert answer.count(tiny_model.seg_token_id) == 1 and answer.count(IM_END) == 1
    assert decode_answer(tiny_model.processor.tokenizer, answer, "<SEG>") == typed + " <SEG>"


@pytest.mark.parametrize("token", ["<think>", "<tool_call>"])
def test_tokens_that_qwen_does_not_call_special_stay_text_too(tiny_model: SatLisa, token: str) -> None:
    """`split_special_tokens` leaves these whole."""
    tokenizer = tiny_model.processor.tokenizer
    tokenizer.add_tokens([token])
    number = tokenizer.convert_tokens_to_ids(token)
    assert number == 264 and number in tokenizer(token, split_special_tokens=True).input_ids
    usual = encode_prompt(tiny_model.processor, [Turn("user", "x")], picture(64, 64)).input_ids.tolist().count(number)
    assert usual == (token == "<think>")  # the template's own
    for typed in (token, f"a{token}b{token}", f"{token}{token}", f"<{token}>", f"{token[:4]}{token}{token[4:]}"):
        prompt = encode_prompt(tiny_model.processor, [Turn("user", typed)], picture(64, 64)).input_ids.tolist()
        answer = encode_answer(tokenizer, typed, 0, tiny_model.seg_token_id).tolist()
        assert prompt.count(number) == usual and number not in answer
        assert typed in tokenizer.decode(prompt) and tokenizer.decode(answer) == f"{typed}<|im_end|>"


def test_half_a_character_is_replaced(tiny_model: SatLisa) -> None:
    prompt = encode_prompt(tiny_model.processor, [Turn("user", "a\ud83d")], picture(64, 64))
    assert "a\ufffd<|im_end|>" in tiny_model.processor.tokenizer.decode(prompt.input_ids)


def test_answer_literal(tiny_model: SatLisa) -> None:
    ids = encode_answer(tiny_model.processor.tokenizer, "ok", 2, tiny_model.seg_token_id).tolist()
    space = byte_ids(tiny_model, " ")
    assert tiny_model.seg_token_id == 263
    assert ids == byte_ids(tiny_model, "ok") + space + [263] + space + [263] + [IM_END]


@pytest.mark.parametrize("prompt", ["", "  ", [Turn("assistant", "x")], []])
def test_a_prompt_must_ask(prompt: object) -> None:
    with pytest.raises(SatlisaError, match="prompt"):
        as_turns(prompt)  # type: ignore[arg-type]


def test_extreme_shapes_are_refused_by_name(tiny_model: SatLisa) -> None:
    with pytest.raises(SatlisaError, match="2000×9"):
        encode_prompt(tiny_model.processor, [Turn("user", "Hi")], picture(2000, 9))
