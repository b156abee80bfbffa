"""Cells are read as JSON within limits, and worded for error messages."""

import time
from typing import Any

import pytest

from satlisa.data.json_cells import describe, parse_cell, without_surrogates


def test_json_text_and_what_is_none() -> None:
    assert parse_cell('{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}
    value: Any = {"a": (1, 2)}
    assert parse_cell(value) is value and parse_cell(None) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nan", r"^is not JSON \(starts with 'nan'\)$"),
        ('{"a": 1, "b": 2, "a": 1}', "^has the key 'a' twice in one object"),
        ("[" * 33 + "]" * 33, "^is nested more than 32 deep$"),
        ("[" * 100_000, "^is nested more than 32 deep"),
        ('{"a": ' * 33 + "1" + "}" * 33, "^is nested more than 32 deep$"),
        ("[" + "1" * 5000 + "]", "^is JSON that cannot be read: .*4300 digits"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_cell(text)


def test_limits() -> None:
    assert parse_cell("[" * 32 + "]" * 32)
    with pytest.raises(ValueError, match="more than 2 deep"):
        parse_cell([[[]]], levels=2)


def test_a_key_twice_is_found_in_no_time() -> None:
    text = "{" + ", ".join(f'"{number}": 0' for number in range(100_000)) + ', "99999": 1}'
    started = time.perf_counter()
    with pytest.raises(ValueError, match="'99999' twice"):
        parse_cell(text)
    assert time.perf_counter() - started < 2


def test_describe_is_short() -> None:
    assert describe({"a": 1, "b": 2}) == "an object with the keys a, b"
    assert describe({}) == "an object with the keys (none)"
    assert describe([1] * 100) == "[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,…"
    assert describe({"k" * 100: 0}) == f"an object with the keys {'k' * 40}"
    assert (
        describe(dict.fromkeys(map(str, range(1010)))) == "an object with the keys 0, 1, 2, 3, 4, 5, 6, 7, 1,002 more"
    )


def test_describe_shows_what_repr_cannot() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert describe(deep) == "something of type list that cannot be shown"
    assert describe(10**5000) == "something of type int that cannot be shown"


def test_half_characters_are_replaced() -> None:
    assert without_surrogates("a\ud83d\ude00b \ud800 \udc00\ud800") == "a\U0001f600b \ufffd \ufffd\ufffd"
    assert without_surrogates("\ufeffשלום 🏠 \x00") == "\ufeffשלום 🏠 \x00"
