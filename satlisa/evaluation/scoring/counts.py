"""Scores of counts in words: "3 buildings and 2 roads"."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from satlisa.evaluation.scoring.bootstrap import Statistic, mean_of, ratio_of
from satlisa.evaluation.scoring.count_text import asked_label, is_count_list, read_counts, read_number

_UNKNOWN = "object"  # the label of a bare number where the prompt names none
_ASKS = re.compile(r"\bhow many\b|\bcount\b|\bnumbers? of\b", re.IGNORECASE)

DEFINITIONS = {
    "object_count_exact": "share of the samples with counts in words whose answer has the right number of every label "
    "and no other label; labels are compared in lower case and singular, word by word; a label ends at a "
    "preposition or a verb of a short list; a bare number counts what the prompt asks for",
    "label_count_exact": "share of all labels of all samples, expected or given, whose number is right; a missing "
    "label counts 0",
    "label_count_mae": "mean of |number given - number expected| over all labels of all samples, expected or given",
    "counts_unparsed": "share of these answers that hold no count, or a range (3-4 buildings), and no statement that "
    "there is none; they count as giving nothing",
}


def asks_for_counts(task: str, prompt: str, expected: str = "") -> bool:
    """Whether a question may be answered by counts: a detection or counting task, "How many ...?", or an expected
    answer that is counts and nothing more. Captions hold numbers too, but an article in them ("a forest") counts
    no object."""
    if any(word in task.casefold() for word in ("detect", "count")) or _ASKS.search(prompt) is not None:
        return True
    return is_count_list(expected)


def states_counts(prompt: str, expected: str) -> bool:
    """Whether an expected answer is counts and nothing more; a bare number after "How many ...?" is one."""
    is_number = _ASKS.search(prompt) is not None and read_number(expected) is not None
    return is_number or is_count_list(expected)


def measure(expected: str, output: str, prompt: str = "") -> dict[str, Any] | None:
    """What is kept of a sample; None where the expected answer holds no count.

    A bare number has the label that the prompt asks for, else "object". An answer that is a bare number has the
    expected label if that is one; where the expected answer is a bare number, "3 large buildings" and "3 buildings"
    answer "How many buildings ...?" alike.

    Returns:
        expected, given: {label: number} without zeros.
        unparsed: the answer holds neither a count nor a statement that there is nothing.
    """
    wanted, asked = read_counts(expected), asked_label(prompt) or _UNKNOWN
    is_bare = wanted is None
    if wanted is None:
        number = read_number(expected)
        if number is None:
            return None
        wanted = _counted(asked, number)
    given = read_counts(output)
    if given is None:
        number = read_number(output) if len(wanted) < 2 else None
        given = None if number is None else _counted(next(iter(wanted), asked), number)
    elif is_bare and len(given) == 1:
        ((label, number),) = given.items()
        given = {asked: number} if _is_kind_of(label, asked) else given
    return {"expected": wanted, "given": given or {}, "unparsed": given is None and bool(output.strip())}


def statistics(entries: Sequence[Mapping[str, Any]]) -> dict[str, Statistic]:
    """Scores by the keys of `DEFINITIONS`, from `counts` of sample entries; empty where no sample has it."""
    kept = [None if entry["error"] is not None else entry.get("counts") for entry in entries]
    if not any(kept):
        return {}
    errors = [_errors(one) if one else [] for one in kept]
    labels = [len(missed) for missed in errors]
    return {
        "object_count_exact": mean_of([one and not any(missed) for one, missed in zip(kept, errors, strict=True)]),
        "label_count_exact": ratio_of([missed.count(0) for missed in errors], labels),
        "label_count_mae": ratio_of([sum(missed) for missed in errors], labels),
        "counts_unparsed": mean_of([one and one["unparsed"] for one in kept]),
    }


def _errors(counts: Mapping[str, Any]) -> list[int]:
    """|given - expected| of each label."""
    expected, given = counts["expected"], counts["given"]
    return [abs(given.get(label, 0) - expected.get(label, 0)) for label in expected | given]


def _counted(label: str, number: int) -> dict[str, int]:
    return {label: number} if number else {}


def _is_kind_of(label: str, asked: str) -> bool:
    """Whether two labels name one noun: "large building" and "building"; the unknown label takes any."""
    return asked == _UNKNOWN or f" {label}".endswith(f" {asked}") or f" {asked}".endswith(f" {label}")
