"""Conversations that are longer than `max_seq_length`: what is left out, so that the rest can be trained.

A box as JSON takes about 30 tokens, so that a list of ten does not fit beside 256 image tokens. Image tokens, `<SEG>`
and questions are never cut.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from satlisa.data.sample import Sample, Turn, answer_places

_AHEAD = 64  # tokens behind the cut that are looked at, to tell a list
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_CLOSING_TAG = re.compile(r"</\w+>|<\|\w+_end\|>")
_SEPARATOR = re.compile(r"[\s,;]*")
_SEPARATOR_AND_OPENING = re.compile(r"""[\s,;]*[\[{("'<]*""")


def answer_range(sample: Sample) -> tuple[int, int]:
    """The fewest answers that a shorter sample may hold, and how many this one has; masks stay with their answer."""
    before = len(answer_places(sample.turns))
    return before + 1 if sample.regions else 1, len(answer_places(_conversation(sample)))


def first_answers(sample: Sample, count: int) -> Sample:
    """The sample up to its answer number `count`, from 1."""
    turns = _conversation(sample)
    end = answer_places(turns)[count - 1]
    if sample.regions:
        return replace(sample, later=turns[len(sample.turns) + 1 : end + 1])
    return replace(sample, turns=turns[:end], answer=turns[end].text, later=())


def _conversation(sample: Sample) -> tuple[Turn, ...]:
    return (*sample.turns, Turn("assistant", sample.answer), *sample.later)


def cut_answer(tokenizer: Any, token_ids: Tensor, room: int) -> Tensor:
    """The beginning of an answer (A,), at most `room` tokens and without its end: that it ends there is not taught.

    A list (of tags, of brackets, of lines, or of values in one bracket) is cut behind its last item that fits; where a
    token holds an item's end and the next one's opening brackets, behind that token. Another text, or a list whose last
    whole item would leave less than half of the room, is cut at the last token.
    """
    ids = token_ids[:-1][: room + _AHEAD].tolist()
    decode = partial(tokenizer.decode, clean_up_tokenization_spaces=False)
    whole, longest = decode(ids), min(room, len(ids))
    texts = {length: decode(ids[:length]) for length in range(longest, longest // 2, -1)}
    for between in (_SEPARATOR, _SEPARATOR_AND_OPENING):
        places = set(_between_items(whole, between))
        for length, text in texts.items():
            if len(text) in places and whole.startswith(text):
                return token_ids[:length]
    return token_ids[:longest]


def _between_items(text: str, between: re.Pattern[str]) -> Iterator[int]:
    """The places in a text, counted in characters, where one item of its list has ended and the next has not begun."""
    for end in _item_ends(_STRING.sub(lambda found: "_" * len(found[0]), text)):
        separator = between.match(text, end)
        assert separator
        yield from range(end, separator.end() + 1)


def _item_ends(text: str) -> list[int]:
    """Where items end: closing tags, else brackets that close at the outermost depth with several, else lines, else
    values."""
    if len(tags := [found.end() for found in _CLOSING_TAG.finditer(text)]) > 1:
        return tags
    closings: dict[int, list[int]] = defaultdict(list)
    values: list[int] = []
    depth = 0
    for place, letter in enumerate(text):
        if letter in "[{(":
            depth += 1
        elif letter in "]})" and depth:
            closings[depth].append(place + 1)
            depth -= 1
        elif letter == "," and depth == 1:
            values.append(place)
    several = [ends for _, ends in sorted(closings.items()) if len(ends) > 1]
    lines = [place for place, letter in enumerate(text) if letter == "\n"]
    return several[0] if several else lines or values
