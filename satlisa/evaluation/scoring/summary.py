"""All scores of a set of samples, with their intervals; the other modules of this folder know one kind each."""

from collections.abc import Mapping, Sequence
from typing import Any

from satlisa.evaluation.metrics import summarise
from satlisa.evaluation.scoring import boxes, captions, classes, counts, instances, referring
from satlisa.evaluation.scoring.bootstrap import Statistic, intervals, mean_of, value_of

_KINDS = (referring, instances, boxes, counts, captions, classes)

Entry = Mapping[str, Any]

DEFINITIONS: dict[str, str] = {
    **{key: text for kind in _KINDS for key, text in kind.DEFINITIONS.items()},
    "seg_rate": "share of the answers that hold `<SEG>`",
}
"""One line for each score: what it is, and its source."""


def statistics_of(entries: Sequence[Entry]) -> dict[str, Statistic]:
    """The scores of sample entries as statistics of how often each is drawn, by the keys of `DEFINITIONS`."""
    entries = _with_one_kind_of_masks(entries)
    found: dict[str, Statistic] = {}
    for kind in _KINDS:
        found |= kind.statistics(entries)
    return found | {"seg_rate": mean_of([None if e["error"] is not None else e["segs"] > 0 for e in entries])}


def _with_one_kind_of_masks(entries: Sequence[Entry]) -> list[Entry]:
    """Entries without `referring` in tasks that have several objects in an answer, without `instances` in the others.

    An entry holds both where its own row does not tell.
    """
    several = {e["task"] for e in entries if len((e.get("instances") or {}).get("truth_areas", ())) > 1}
    found = []
    for entry in entries:
        if "referring" in entry and "instances" in entry:
            dropped = "referring" if entry["task"] in several else "instances"
            entry = {key: value for key, value in entry.items() if key != dropped}
        found.append(entry)
    return found


def scores_of(entries: Sequence[Entry]) -> dict[str, Any]:
    """The scores of a task.

    Returns:
        the keys of `metrics.summarise`, those of `DEFINITIONS` that apply, and
        intervals: {key: [low, high]}, 95 % bootstrap intervals over samples; None where there is none.
        sources: {source: {"samples", "errors", the scores and their intervals}}.
        confusion: labels and counts of judged answers, where there are.
    """
    entries = _with_one_kind_of_masks(entries)
    found = _with_intervals(entries)
    sources = sorted({str(entry["source"] or "") for entry in entries})
    parts = {name: [entry for entry in entries if str(entry["source"] or "") == name] for name in sources}
    by_source = {name: dict(found) if len(sources) == 1 else _with_intervals(part) for name, part in parts.items()}
    if (confusion := classes.confusion(entries)) is not None:
        found["confusion"] = confusion
    return found | {"sources": by_source}


def _with_intervals(entries: Sequence[Entry]) -> dict[str, Any]:
    statistics = statistics_of(entries)
    values = {key: value_of(statistic, len(entries)) for key, statistic in statistics.items()}
    values |= classes.baselines(entries) | summarise(entries)
    return values | {"intervals": intervals(statistics, len(entries))}
