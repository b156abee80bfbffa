"""Cells: what a row's column holds, read as JSON within limits, and worded for error messages."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from satlisa.errors import first_line

_LEVELS = 32  # the deepest spelling that is read, metadata.objects[].segmentation[][][x, y], has seven
_KEYS_SHOWN = 8


class _TwiceError(ValueError):
    """A key that an object has twice: which of the two is meant would be a guess."""


def parse_cell(value: Any, levels: int = _LEVELS) -> Any:
    """A cell's JSON text as lists and objects; what is no text passes through.

    Raises:
        ValueError: no JSON, a key twice in one object, or lists and objects more than `levels` deep (the readers
            behind this one are recursive).
    """
    if isinstance(value, str):
        try:
            value = json.loads(value, object_pairs_hook=_without_doubles)
        except RecursionError as error:
            raise ValueError(f"is nested more than {levels} deep (starts with {value[:20]!r})") from error
        except (json.JSONDecodeError, _TwiceError) as error:
            reason = str(error) if isinstance(error, _TwiceError) else "is not JSON"
            raise ValueError(f"{reason} (starts with {value[:20]!r})") from error
        except ValueError as error:  # a number of more than 4,300 digits
            raise ValueError(f"is JSON that cannot be read: {first_line(error)}") from error
    check_levels(value, levels)
    return value


def decode_at(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that begins at a place in a text, and where it ends.

    Raises:
        ValueError, RecursionError: none does, or one that `parse_cell` refuses.
    """
    value, end = _DECODER.raw_decode(text, start)
    check_levels(value)
    return value, end


def check_levels(value: Any, levels: int = _LEVELS) -> None:
    """Refuse lists and objects nested more than `levels` deep.

    Raises:
        ValueError: they are.
    """
    inside = [value]
    for _ in range(levels):
        inside = [item for outer in inside for item in _items(outer) if isinstance(item, list | tuple | dict)]
        if not inside:
            return
    raise ValueError(f"is nested more than {levels} deep")


def describe(value: Any) -> str:
    """What was found, short enough for an error message."""
    if isinstance(value, Mapping):
        keys = [str(key)[:40] for key in list(value)[:_KEYS_SHOWN]]
        more = [f"{len(value) - _KEYS_SHOWN:,} more"] if len(value) > _KEYS_SHOWN else []
        return f"an object with the keys {', '.join(keys + more) or '(none)'}"
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of more than 4,300 digits; a list thousands deep
        return f"something of type {type(value).__name__} that cannot be shown"
    return text if len(text) <= 40 else f"{text[:39]}…"


def without_surrogates(text: str) -> str:
    """Text that UTF-8 can hold: half a character, which JSON may spell ("\\ud83d"), becomes the replacement one."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise _TwiceError(f"has the key {describe(twice)} twice in one object")
    return made


_DECODER = json.JSONDecoder(object_pairs_hook=_without_doubles)
