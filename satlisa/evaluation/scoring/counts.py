"""Scores of counts in words: "3 buildings and 2 roads"."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from satlisa.evaluation.scoring.bootstrap import Statistic, mean_of, ratio_of
from satlisa.evaluation.scoring.count_text import read_counts

_ASKS = re.compile(r"\bhow many\b|\bcount\b|\bnumbers? of\b", re.IGNORECASE)

DEFINITIONS = {
    "object_count_exact": "share of the samples with counts in words whose answer has the right number of every label "
    "and no other label; labels are compared in lower case and singular, word by word",
    "label_count_exact": "share of all labels of all samples, expected or given, whose number is right; a missing "
    "label counts 0",
    "label_count_mae": "mean of |number given - number expected| over all labels of all samples, expected or given",
    "counts_unparsed": "share of these answers that hold no count and no statement that there is none; they count as "
    "giving nothing",
}


def asks_for_counts(task: str, prompt: str) -> bool:
    """Whether a question may be answered by counts: a detection or counting task, or "How many ...?". Captions hold
    numbers too, but an article in them ("a forest") counts no object."""
    return any(word in task.casefold() for word in ("detect", "count")) or _ASKS.search(prompt) is not None


def measure(expected: str, output: str) -> dict[str, Any] | None:
    """What is kept of a sample; None where the expected answer holds no count.

    Returns:
        expected, given: {label: number} without zeros.
        unparsed: the answer holds neither a count nor a statement that there is nothing.
    """
    wanted = read_counts(expected)
    if wanted is None:
        return None
    given = read_counts(output)
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
