"""Parse the JSON in a row's cells within limits, and describe values in error messages."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from satlisa.errors import first_line

_LEVELS = 32  # nesting limit; the deepest supported format, metadata.objects[].segmentation[][][x, y], has 7 levels
_KEYS_SHOWN = 8


class _DuplicateKeyError(ValueError):
    """Duplicate key in a JSON object."""


def parse_cell(value: Any, levels: int = _LEVELS) -> Any:
    """Parse a cell's JSON text, also JSON that was encoded twice; any other value passes through.

    Raises:
        ValueError: not JSON, a duplicate key in an object, or nesting deeper than `levels` (callers are recursive).
    """
    if isinstance(value, str):
        try:
            value = json.loads(value, object_pairs_hook=_unique_keys)
        except RecursionError as error:
            raise ValueError(f"is nested more than {levels} deep (starts with {value[:20]!r})") from error
        except (json.JSONDecodeError, _DuplicateKeyError) as error:
            reason = str(error) if isinstance(error, _DuplicateKeyError) else "is not JSON"
            raise ValueError(f"{reason} (starts with {value[:20]!r})") from error
        except ValueError as error:  # an integer of more than 4,300 digits
            raise ValueError(f"is JSON that cannot be read: {first_line(error)}") from error
        if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):  # encoded twice
            return parse_cell(value, levels)
    check_levels(value, levels)
    return value


def as_objects(value: Any) -> Any:
    """An object of equally long lists, as `datasets` stores a sequence of objects, as a list of objects; any other
    value passes through."""
    if not isinstance(value, Mapping) or not value:
        return value
    columns = [item.tolist() if hasattr(item, "tolist") else item for item in value.values()]
    if not all(isinstance(column, list | tuple) and len(column) == len(columns[0]) for column in columns):
        return value
    return [dict(zip(value, items, strict=True)) for items in zip(*columns, strict=True)]


def decode_at(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that starts at an index of a text, and the index where it ends.

    Raises:
        ValueError, RecursionError: no JSON there, or JSON that `parse_cell` refuses.
    """
    value, end = _DECODER.raw_decode(text, start)
    check_levels(value)
    return value, end


def is_empty(value: Any) -> bool:
    """Whether a value holds nothing: null, blank text, or lists and objects of nothing else."""
    if isinstance(value, str):
        return value.strip() in ("", "[]", "{}")
    return value is None or (isinstance(value, Mapping | list | tuple) and all(map(is_empty, _items(value))))


def check_levels(value: Any, levels: int = _LEVELS) -> None:
    """Refuse a value nested deeper than `levels` with a ValueError."""
    inside = [value]
    for _ in range(levels):
        inside = [item for outer in inside for item in _items(outer) if isinstance(item, list | tuple | dict)]
        if not inside:
            return
    raise ValueError(f"is nested more than {levels} deep")


def describe(value: Any) -> str:
    """A value in a few words, for an error message."""
    if isinstance(value, Mapping):
        keys = [str(key)[:40] for key in list(value)[:_KEYS_SHOWN]]
        more = [f"{len(value) - _KEYS_SHOWN:,} more"] if len(value) > _KEYS_SHOWN else []
        return f"an object with the keys {', '.join(keys + more) or '(none)'}"
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of more than 4,300 digits; a list nested thousands deep
        return f"something of type {type(value).__name__} that cannot be shown"
    return text if len(text) <= 40 else f"{text[:39]}…"


def without_surrogates(text: str) -> str:
    """Text that UTF-8 can encode: lone surrogates, which JSON may contain ("\\ud83d"), become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise _DuplicateKeyError(f"has the key {describe(twice)} twice in one object")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys)
