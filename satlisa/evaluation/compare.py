"""Two evaluations of the same rows, side by side: COMPARE.md.

The difference is second - first on the rows that both answered, with a paired bootstrap interval: both are drawn
together, so that a row that is hard for both does not blur the difference. Rows that failed in either are left out of
both, since they have no score; that hides the failures, so they are counted beside every score.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from satlisa.errors import SatlisaError, first_line
from satlisa.evaluation.report import RESULTS_FILE, escape, read_results
from satlisa.evaluation.same_rows import check_same_rows, samples_by_row, shortened
from satlisa.evaluation.scoring.bootstrap import Statistic, paired_intervals, value_of
from satlisa.evaluation.tables import markdown_table, plain_table, printable
from satlisa.runtime.atomic_files import atomic_write
from satlisa.runtime.locations import check_writable, writing_to

COMPARE_FILE = "COMPARE.md"
_TITLE = "# Comparison of two evaluations"
_SETTING = "--output_dir"
_LARGE = 1e6  # from here on, numbers are written with an exponent
_OF_EACH_RUN = {"model_dir", "model_files", "started", "seconds", "report_samples"}

Entry = Mapping[str, Any]
Results = Mapping[str, Any]
StatisticsOf = Callable[[Sequence[Entry]], Mapping[str, Statistic]]


@dataclass(frozen=True)
class Row:
    """A score of a task in both evaluations.

    Attributes:
        samples: rows of the task that both answered.
        errors: rows that failed in the first and in the second.
        interval: the 95 % interval of the difference; None where too few draws have one.
    """

    task: str
    key: str
    samples: int
    errors: tuple[int, int]
    first: float | None
    second: float | None
    difference: float | None
    interval: list[float] | None


@dataclass(frozen=True)
class Comparison:
    """Rows of a table, the two models, and notes on what differs besides the scores."""

    names: tuple[str, str]
    rows: list[Row]
    notes: list[str]


def write_comparison(
    first: str | Path,
    second: str | Path,
    output: str | Path,
    statistics_of: StatisticsOf,
    keys: Sequence[str] | None = None,
) -> str:
    """Compare two results.json, or the folders that hold them, and write COMPARE.md into the folder `output`.

    Args:
        statistics_of, keys: as of `compare`.

    Returns:
        The table as plain text.

    Raises:
        SatlisaError: a file cannot be read or used, the rows differ, `output` cannot be written, or its COMPARE.md is
            not ours.
    """
    folder = Path(output).expanduser()
    check_writable(folder, _SETTING)
    _check_replaceable(folder / COMPARE_FILE)
    paths = [_results_path(path) for path in (first, second)]
    results = [_read(path) for path in paths]
    found = compare(results[0], results[1], statistics_of, keys=keys, names=(str(paths[0]), str(paths[1])))
    with writing_to(folder, _SETTING):
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / COMPARE_FILE, render(found).encode(errors="replace"))
    return plain_text(found)


def compare(
    first: Results,
    second: Results,
    statistics_of: StatisticsOf,
    *,
    keys: Sequence[str] | None = None,
    names: tuple[str, str] = ("the first", "the second"),
) -> Comparison:
    """Compare two evaluations of the same rows.

    Args:
        first, second: contents of results.json.
        statistics_of: the statistics of a task's entries, by key.
        keys: which of them are compared, in this order; None: all.
        names: of the two files, for messages.

    Raises:
        SatlisaError: samples are not those of an evaluation, or the two are not of the same rows.
    """
    one, other = (samples_by_row(results, name) for results, name in zip((first, second), names, strict=True))
    check_same_rows(one, other, names)
    keys_of_rows = [results["settings"].get("rows") for results in (first, second)]
    if None not in keys_of_rows and keys_of_rows[0] != keys_of_rows[1]:
        raise SatlisaError(
            f"expected the same rows in both, found other texts or images: those of {names[0]} have the fingerprint "
            f"{keys_of_rows[0]}, those of {names[1]} {keys_of_rows[1]}; evaluate both on the same data"
        )
    rows: list[Row] = []
    notes = _differing_settings(first, second)
    failed = {}
    for task in dict.fromkeys(task for task, _ in one):
        pairs = [(one[place], other[place]) for place in one if place[0] == task]
        errors = _num_errors(pairs, 0), _num_errors(pairs, 1)
        if any(errors):
            failed[task] = errors
        answered = [pair for pair in pairs if pair[0]["error"] is None and pair[1]["error"] is None]
        found, lacking = _compare_task(task, answered, errors, statistics_of, keys, names)
        rows += found
        notes += lacking
    if failed:
        counts = ", ".join(f"{shortened(task)} {a} and {b}" for task, (a, b) in failed.items())
        notes.append(f"Rows that failed in A and in B, and count in no score: {counts}.")
    return Comparison((_model(first), _model(second)), rows, notes)


def _num_errors(pairs: Sequence[tuple[Entry, Entry]], side: int) -> int:
    return sum(pair[side]["error"] is not None for pair in pairs)


def plain_text(comparison: Comparison) -> str:
    """The table for a terminal, the two models above it and the notes below."""
    models = [printable(f"{name}: {model}") for name, model in zip("AB", comparison.names, strict=True)]
    notes = map(printable, comparison.notes)
    return "\n".join([*models, "", plain_table(_cells(comparison.rows), left=2), "", *notes]).rstrip()


def render(comparison: Comparison) -> str:
    """The text of COMPARE.md."""
    table = [[escape(cell) for cell in row] for row in _cells(comparison.rows)]
    lines = [
        _TITLE,
        "",
        *(f"- **{name}:** {escape(model)}" for name, model in zip("AB", comparison.names, strict=True)),
        "",
        *markdown_table(table, left=2),
        "",
        "B − A is over the rows that both answered. Its 95 % interval is a paired bootstrap over samples: where it "
        "holds 0, these rows do not tell which model is better.",
        *(line for note in comparison.notes for line in ("", escape(note))),
    ]
    return "\n".join(lines) + "\n"


def _cells(rows: Sequence[Row]) -> list[list[str]]:
    header = ["Task", "Score", "Samples", "Errors A", "Errors B", "A", "B", "B − A", "95 % interval"]
    return [header, *map(_row_cells, rows)]


def _row_cells(row: Row) -> list[str]:
    counts = map(str, (row.samples, *row.errors))
    scores = _number(row.first), _number(row.second), _number(row.difference, "+"), _interval(row.interval)
    return [row.task, row.key, *counts, *scores]


def _number(value: float | None, sign: str = "") -> str:
    if value is None:
        return "–"
    return f"{value:{sign}.3f}" if abs(value) < _LARGE else f"{value:{sign}.3g}"


def _interval(interval: Sequence[float] | None) -> str:
    return "–" if interval is None else f"{_number(interval[0], '+')} to {_number(interval[1], '+')}"


def _compare_task(
    task: str,
    pairs: Sequence[tuple[Entry, Entry]],
    errors: tuple[int, int],
    statistics_of: StatisticsOf,
    keys: Sequence[str] | None,
    names: tuple[str, str],
) -> tuple[list[Row], list[str]]:
    """The rows of a task, from the samples that both answered, and notes on scores that only one of the files has."""
    sides = [[pair[side] for pair in pairs] for side in (0, 1)]
    (one, values), (other, other_values) = (
        _scored(entries, statistics_of, f"{name}: task '{shortened(task)}'")
        for entries, name in zip(sides, names, strict=True)
    )
    wanted = list(dict.fromkeys([*one, *other])) if keys is None else keys
    both = [key for key in wanted if key in one and key in other]
    intervals = paired_intervals({key: one[key] for key in both}, {key: other[key] for key in both}, len(pairs))
    rows = []
    for key in both:
        first, second = values[key], other_values[key]
        difference = second - first if first is not None and second is not None else None
        interval = intervals[key] if difference is not None else None
        rows.append(Row(task, key, len(pairs), errors, first, second, difference, interval))
    notes = []
    for name, has, lacks in (("A", one, other), ("B", other, one)):
        if alone := [key for key in wanted if key in has and key not in lacks]:
            what = f"{shortened(task)}: only {name} holds what {', '.join(alone)} needs"
            notes.append(f"{what}; evaluate the other one again with this version.")
    return rows, notes


def _scored(
    entries: list[Entry], statistics_of: StatisticsOf, where: str
) -> tuple[Mapping[str, Statistic], dict[str, float | None]]:
    """The statistics of entries, which anybody may have written, and their values.

    Raises:
        SatlisaError: a value is missing or of another type.
    """
    try:
        statistics = statistics_of(entries)
        return statistics, {key: value_of(statistic, len(entries)) for key, statistic in statistics.items()}
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise SatlisaError(f"{where}: its samples cannot be scored ({reason}); evaluate again") from error


def _results_path(path: str | Path) -> Path:
    place = Path(path).expanduser()
    return place / RESULTS_FILE if place.is_dir() else place


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_results(path)
    except RecursionError as error:
        raise SatlisaError(f"{path}: not a readable {RESULTS_FILE} (nested too deeply)") from error


def _differing_settings(first: Results, second: Results) -> list[str]:
    """A note on settings that differ; the rows are the same even where the names of the datasets are not."""
    one, other = first["settings"], second["settings"]
    differing = [key for key in {**one, **other} if key not in _OF_EACH_RUN and one.get(key) != other.get(key)]
    parts = [f"{shortened(key)} {shortened(one.get(key))} and {shortened(other.get(key))}" for key in differing]
    return [f"Settings that differ: {'; '.join(parts)}."] if parts else []


def _model(results: Results) -> str:
    settings = results["settings"]
    known = [str(settings[key]) for key in ("model_dir", "dataset", "split", "started") if settings.get(key)]
    return ", ".join(known) or "unknown model"


def _check_replaceable(path: Path) -> None:
    """Raise where something else than an earlier comparison has the file's place."""
    try:
        is_ours = path.read_text(encoding="utf-8").startswith(_TITLE + "\n")
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        is_ours = False
    if not is_ours:
        raise SatlisaError(
            f"{_SETTING}: expected no file or an earlier comparison at {path}, found something else; move it away or "
            f"name another {_SETTING}, nothing was changed"
        )
