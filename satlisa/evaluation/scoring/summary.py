"""All scores of a set of samples, with their intervals; the other modules of this folder know one kind each."""

from collections.abc import Mapping, Sequence
from typing import Any

from satlisa.evaluation.metrics import summarise
from satlisa.evaluation.scoring import boxes, captions, classes, counts, instances, referring
from satlisa.evaluation.scoring.bootstrap import Statistic, intervals, mean_of, value_of

_KINDS = (referring, instances, boxes, counts, captions, classes)

DEFINITIONS: dict[str, str] = {
    **{key: text for kind in _KINDS for key, text in kind.DEFINITIONS.items()},
    "seg_rate": "share of the answers that hold `<SEG>`",
}
"""One line for each score: what it is, and its source."""


def statistics_of(entries: Sequence[Mapping[str, Any]]) -> dict[str, Statistic]:
    """The scores of sample entries as statistics of how often each is drawn, by the keys of `DEFINITIONS`."""
    found: dict[str, Statistic] = {}
    for kind in _KINDS:
        found |= kind.statistics(entries)
    return found | {"seg_rate": mean_of([None if e["error"] is not None else e["segs"] > 0 for e in entries])}


def scores_of(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The scores of a task.

    Returns:
        the keys of `metrics.summarise`, those of `DEFINITIONS` that apply, and
        intervals: {key: [low, high]}, 95 % bootstrap intervals over samples; None where there is none.
        sources: {source: {"samples", "errors", and the scores}} where there are several.
        confusion: labels and counts of judged answers, where there are.
    """
    found = _values(entries)
    sources = sorted({str(entry["source"] or "") for entry in entries})
    parts = {name: [entry for entry in entries if str(entry["source"] or "") == name] for name in sources}
    found["intervals"] = intervals(statistics_of(entries), len(entries))
    if len(sources) > 1:
        found["sources"] = {name: _values(part) for name, part in parts.items()}
    if (confusion := classes.confusion(entries)) is not None:
        found["confusion"] = confusion
    return found


def _values(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    values = {key: value_of(statistic, len(entries)) for key, statistic in statistics_of(entries).items()}
    return values | classes.baselines(entries) | summarise(entries)
