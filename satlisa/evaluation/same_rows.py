"""Whether two evaluations are of the same rows, judged by their results.json alone, which anybody may have written."""

import json
import re
from collections.abc import Mapping
from typing import Any

from satlisa.errors import SatlisaError
from satlisa.evaluation.report import RESULTS_FILE

_SEG = re.compile(r"<SEG>|\[SEG\]")
_KINDS: dict[str, tuple[type, ...]] = {  # of the values of a sample that every version has written
    "task": (str,),
    "index": (int,),
    "error": (str, type(None)),
    **dict.fromkeys(("prompt", "expected", "output"), (str, type(None))),
}
_ADVICE = f"name a {RESULTS_FILE} that infer_dataset.py has written"
_MOST = 5  # examples in a message
_LONGEST = 60  # characters of an example

Entry = Mapping[str, Any]
Place = tuple[str, int]
"""Task and row number of a sample."""


def samples_by_row(results: Mapping[str, Any], name: str) -> dict[Place, Entry]:
    """The samples by task and row number, sorted.

    Raises:
        SatlisaError: names the sample, what was expected and what was found.
    """
    samples = results.get("samples")
    if not isinstance(samples, list) or not isinstance(results.get("settings"), Mapping):
        raise SatlisaError(f"{name}: expected an object of settings and a list of samples; {_ADVICE}")
    if not samples:
        raise SatlisaError(f"{name}: expected samples, found none; evaluate again")
    found: dict[Place, Entry] = {}
    for number, entry in enumerate(samples):
        place = _checked(entry, f"{name}: sample {number}")
        if place in found:
            task, index = place
            raise SatlisaError(f"{name}: row {index} of '{shortened(task)}' is there twice; evaluate again")
        found[place] = entry
    return dict(sorted(found.items()))


def _checked(entry: Any, where: str) -> Place:
    """Task and row number of an entry whose values are of the kinds that every version has written."""
    if not isinstance(entry, Mapping):
        raise SatlisaError(f"{where}: expected an object, found {shortened(entry)}; {_ADVICE}")
    for key, kinds in _KINDS.items():
        if key not in entry or not isinstance(entry[key], kinds) or isinstance(entry[key], bool):
            value = shortened(entry[key]) if key in entry else "nothing"
            kind = "a number" if int in kinds else "text or null" if len(kinds) > 1 else "text"
            raise SatlisaError(f"{where}: `{key}`: expected {kind}, found {value}; {_ADVICE}")
    return entry["task"], entry["index"]


def check_same_rows(one: Mapping[Place, Entry], other: Mapping[Place, Entry], names: tuple[str, str]) -> None:
    """Raise unless both have the same rows: task, number, prompt, expected answer, and image where both tell it."""
    advice = "evaluate both with the same --dataset, --split, --samples_per_task and --seed"
    for has, lacks, name in ((one, other, names[0]), (other, one, names[1])):
        if missing := [place for place in has if place not in lacks]:
            examples = ", ".join(f"row {index} of '{shortened(task)}'" for task, index in missing[:_MOST])
            more = f" and {len(missing) - _MOST} more" if len(missing) > _MOST else ""
            raise SatlisaError(f"expected the same rows in both, found only in {name}: {examples}{more}; {advice}")
    for (task, index), entry in one.items():
        if (objects := _truth(entry)) and (others := _truth(other[task, index])) and objects != others:
            found = f"{shortened(objects)} in {names[0]} and {shortened(others)} in {names[1]}"
            raise SatlisaError(
                f"row {index} of '{shortened(task)}': expected the same objects in both, found areas {found}; {advice}"
            )
        for key in ("prompt", "expected", "image_key"):
            a, b = (_comparable(side.get(key)) for side in (entry, other[task, index]))
            if a is not None and b is not None and a != b:
                found = f"{shortened(a)} in {names[0]} and {shortened(b)} in {names[1]}"
                raise SatlisaError(
                    f"row {index} of '{shortened(task)}': expected the same {key} in both, found {found}; {advice}"
                )


def _truth(entry: Entry) -> list[Any]:
    """The areas of the true masks in pixels, where an entry has them."""
    objects, union = entry.get("instances"), entry.get("referring")
    areas = objects.get("truth_areas") if isinstance(objects, Mapping) else None
    pixels = union.get("truth_pixels") if isinstance(union, Mapping) else None
    return [*(areas if isinstance(areas, list) else []), *([] if pixels is None else [pixels])]


def _comparable(value: Any) -> str | None:
    """A text without `<SEG>`, of which a model may have another one, or be trained to give fewer; None if unknown."""
    return " ".join(_SEG.sub(" ", value).split()) if isinstance(value, str) else None


def shortened(value: Any) -> str:
    """A value for a message: text as it is, other values as JSON, truncated."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
