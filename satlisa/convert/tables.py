"""CSV files and lists in JSON, for captions and questions."""

import csv
from pathlib import Path
from typing import Any

from satlisa.errors import SatlisaError, first_line


def read_csv(path: Path, needed: tuple[tuple[str, ...], ...]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with a header, with their line numbers, under the first name of each tuple.

    Args:
        needed: for each column, its name and other spellings.

    Raises:
        SatlisaError: not UTF-8 text, a column that is missing, a row of another length.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            found = {name.strip().casefold(): name for name in reader.fieldnames or []}
            columns = {names[0]: next((found[name] for name in names if name in found), None) for names in needed}
            missing = [name for name, column in columns.items() if column is None]
            if missing:
                known = ", ".join(found) or "none"
                raise SatlisaError(f"{path}: no column {', '.join(missing)}; found {known}; rename or add them")
            rows = []
            for row in reader:
                if None in row or None in row.values():
                    raise SatlisaError(f"{path}: line {reader.line_num}: expected {len(found)} cells")
                rows.append(
                    (reader.line_num, {name: str(row[column or ""]).strip() for name, column in columns.items()})
                )
            return rows
    except (OSError, ValueError, csv.Error) as error:
        raise SatlisaError(f"{path}: expected a CSV file in UTF-8 with a header ({first_line(error)})") from error


def text_of(value: Any, where: str) -> str:
    """A text or a number of JSON as text.

    Raises:
        SatlisaError: anything else, or blank text.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise SatlisaError(f"{where}: expected a text, found {value!r}; mend or remove it")
    return str(value).strip()
