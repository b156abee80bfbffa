"""Rows that could not be used, counted by reason."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from satlisa.data.sample import RowError


class Skips:
    """Rows that could not be used, by reason."""

    def __init__(self, errors: Iterable[RowError] = ()) -> None:
        self._errors: dict[tuple[str, str], dict[int, RowError]] = {}
        for error in errors:
            self.add(error)

    @classmethod
    def from_lists(cls, rows: Iterable[Sequence[Any]]) -> "Skips":
        """The inverse of `as_lists`."""
        return cls(RowError(*row) for row in rows)

    def as_lists(self) -> list[list[Any]]:
        """[row number, column, reason] of every row once, for JSON."""
        return [[e.index, e.column, e.reason] for rows in self._errors.values() for e in rows.values()]

    def __len__(self) -> int:
        """The number of rows; a row met again in a later epoch counts once."""
        return sum(map(len, self._errors.values()))

    def add(self, error: RowError) -> None:
        """Count a row. Reasons that differ only in brackets, quotes and numbers are one."""
        kind = re.sub(r"\d+", "N", re.sub(r"'[^']*'", "", _without_brackets(error.reason)))
        self._errors.setdefault((error.column, kind), {})[error.index] = error

    def summary(self) -> list[str]:
        """A line per reason, most frequent first: "3 rows skipped: `metadata` is not JSON (rows 5, 17, 812)"."""
        groups = sorted(self._errors.items(), key=lambda item: -len(item[1]))
        return [_skip_line(column, rows) for (column, _), rows in groups]


def _without_brackets(reason: str) -> str:
    return re.sub(r"\s*\([^)]*\)", "", reason)


def _skip_line(column: str, rows: dict[int, RowError]) -> str:
    if len(rows) == 1:
        (index, error), *_ = rows.items()
        return f"1 row skipped: `{column}` {error.reason} (row {index})"
    order = sorted(rows)
    reasons = [_without_brackets(rows[index].reason) for index in order]
    alike = ", and similar" if len(set(reasons)) > 1 else ""
    more = f" and {len(order) - 10} more" if len(order) > 10 else ""
    numbers = ", ".join(map(str, order[:10]))
    return f"{len(rows)} rows skipped: `{column}` {reasons[0]}{alike} (rows {numbers}{more})"
