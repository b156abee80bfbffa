"""Rows in messages: groups of them, and their numbers."""

from collections import defaultdict
from collections.abc import Callable, Sequence

from satlisa.check.facts import Facts

_SHOWN = 3  # row numbers
_SINGULAR = {"have": "has", "are": "is", "mix": "mixes"}


def grouped(rows: Sequence[Facts], key: Callable[[Facts], str]) -> dict[str, list[Facts]]:
    """Rows by a key, in order."""
    found: dict[str, list[Facts]] = defaultdict(list)
    for one in rows:
        found[key(one)].append(one)
    return dict(found)


def numbers(rows: Sequence[Facts]) -> str:
    """Row numbers for a message: "rows 3, 17, 80 and 12 more"."""
    listed = sorted({one.index for one in rows})
    more = f" and {len(listed) - _SHOWN:,} more" if len(listed) > _SHOWN else ""
    return f"row{'s' * (len(listed) > 1)} {', '.join(map(str, listed[:_SHOWN]))}{more}"


def rows_that(rows: Sequence[Facts], text: str) -> str:
    """A line about some rows of one part: "3 rows have masks that are empty (rows 1, 5, 8)"."""
    if len(rows) == 1:
        verb, rest = text.split(" ", 1)
        return f"1 row {_SINGULAR.get(verb, verb)} {rest} ({numbers(rows)})"
    return f"{len(rows):,} rows {text} ({numbers(rows)})"
