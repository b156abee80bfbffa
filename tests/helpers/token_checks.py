"""What holds for the tokens of every sample, whatever its text says: no token with a meaning is smuggled in."""

import unicodedata
from collections import Counter
from collections.abc import Sequence

from tokenizers import AddedToken

from satlisa.data.sample import Sample, Turn
from satlisa.model.satlisa import SatLisa
from satlisa.processing.chat import render_prompt
from satlisa.processing.collator import Encoded
from satlisa.processing.processor import encode_sample

UNNAMED = ("<think>", "</think>", "<tool_call>")  # tokens that Qwen has and does not call special


class Reader:
    """What rows are encoded with: a model's own, its tokenizer with unnamed tokens too. No dataclass: it would be
    printed where a test fails."""

    def __init__(self, model: SatLisa) -> None:
        self.processor, self.sam_inputs, self.config = model.processor, model.segmenter.inputs, model.config
        self.processor.tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in UNNAMED])

    def encode(self, sample: Sample) -> Encoded:
        return encode_sample(sample, self.processor, self.sam_inputs, self.config)


def check_tokens(sample: Sample, encoded: Encoded, reader: Reader) -> None:
    """One image, as many `<SEG>` as masks, one end of the answer, no meanings but the template's, and all the text.

    Of a conversation that is too long: a beginning of it that fits.
    """
    if encoded.shortened:
        assert 0 < encoded.length <= reader.config.max_seq_length
        return
    processor, tokenizer, seg_token_id = reader.processor, reader.processor.tokenizer, reader.config.seg_token_id
    prompt, answer = encoded.prompt, encoded.answer_ids.tolist()
    meanings = set(tokenizer.added_tokens_decoder)
    found = Counter(token for token in prompt.input_ids.tolist() if token in meanings)
    plain = [Turn(turn.role, "x") for turn in sample.turns]
    expected = render_prompt(processor, plain, prompt.pixel_values, prompt.image_grid_thw).input_ids.tolist()
    assert found == Counter(token for token in expected if token in meanings)
    merged = int(prompt.image_grid_thw.prod()) // processor.image_processor.merge_size**2
    assert found[processor.image_token_id] == merged
    assert found[tokenizer.convert_tokens_to_ids("<|vision_start|>")] == 1
    assert seg_token_id not in found
    masks = len(sample.regions)
    assert [token for token in answer if token in meanings] == [seg_token_id] * masks + [tokenizer.eos_token_id]
    assert answer[-1] == tokenizer.eos_token_id and len(encoded.seg_places) == len(encoded.mask_targets) == masks
    shown = tokenizer.decode(answer, clean_up_tokenization_spaces=False)
    assert shown == composed(sample.answer.strip()) + " <SEG>" * masks + tokenizer.eos_token
    check_texts(sample.turns, tokenizer.decode(prompt.input_ids, clean_up_tokenization_spaces=False))


def check_texts(turns: Sequence[Turn], shown: str) -> None:
    """The text of every turn is there, in order."""
    place = 0
    for text in (composed(turn.text.strip()) for turn in turns):
        place = shown.index(text, place) + len(text)


def composed(text: str) -> str:
    """Text as Qwen's tokenizer reads it: characters that have several spellings in one of them (NFC)."""
    return unicodedata.normalize("NFC", text)
