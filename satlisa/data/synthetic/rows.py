"""The demo dataset: rows about synthetic scenes, in the columns of the real dataset.

Texts and polygons are created eagerly, images lazily: drawing takes ten times as long as planning.
"""

import io
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from satlisa.data.synthetic.painter import paint
from satlisa.data.synthetic.plan import Plan
from satlisa.data.synthetic.questions import Question, ask_box_list, ask_everything, ask_object_count
from satlisa.errors import SatlisaError

_SEEDS_PER_SPLIT = 1_000_000
_SPLITS = {"train": 500, "validation": 40, "test": 220, "pretrain": 3000}  # scenes; the order decides the seeds
_SHUFFLE_SEED = 20


class DemoRows:
    """A sequence of rows: dicts with the columns `task`, `source`, `image`, `conversations` and `metadata`.

    `image` is {"bytes": PNG of 256² pixels, "path": None}; `conversations` and `metadata` are JSON strings.
    """

    def __init__(self, entries: list[dict[str, Any]]) -> None:
        self._entries = entries  # the rows, with the scene's seed as `image`
        self._pictures: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int | str) -> Any:
        """A row by index, or a column of texts by name, without drawing images."""
        if isinstance(index, str):
            return [entry[index] for entry in self._entries]
        entry = self._entries[index]
        return {**entry, "image": {"bytes": self._picture(entry["image"]), "path": None}}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def _picture(self, seed: int) -> bytes:
        """PNG bytes of a scene, drawn once and cached: 110 kB each."""
        if seed not in self._pictures:
            buffer = io.BytesIO()
            paint(Plan(seed)).save(buffer, format="PNG", compress_level=1)
            self._pictures[seed] = buffer.getvalue()
        return self._pictures[seed]


def demo_rows(split: str, num_scenes: int | None = None) -> DemoRows:
    """Rows of a split of the demo dataset, always the same ones; no scene is in two splits.

    Args:
        split: "train", "validation", "test", or "pretrain" (for the demo backbone, with both forms of object detection
            for every scene).
        num_scenes: number of scenes, default 500, 40, 220 and 3000; 3 to 5 rows each (pretrain: up to 7).

    Raises:
        SatlisaError: an unknown split, or more scenes than the split has seeds.
    """
    return DemoRows(_entries(split, num_scenes))


@cache
def _entries(split: str, num_scenes: int | None) -> list[dict[str, Any]]:
    """The rows without their pictures, planned once in a process: 500 scenes take three seconds."""
    seeds = scene_seeds(split, num_scenes)
    entries = [entry for number, seed in enumerate(seeds) for entry in _scene_entries(seed, number, split)]
    order = np.random.default_rng(_SHUFFLE_SEED).permutation(len(entries))  # so that any slice holds every task
    return [entries[place] for place in order]


def scene_seeds(split: str, num_scenes: int | None = None) -> range:
    """The seeds of a split's scenes; errors as in `demo_rows`."""
    if split not in _SPLITS:
        raise SatlisaError(f"the demo dataset has no split {split!r}; it has {', '.join(_SPLITS)}")
    count = _SPLITS[split] if num_scenes is None else num_scenes
    if not 0 < count <= _SEEDS_PER_SPLIT:
        raise SatlisaError(f"num_scenes of the demo dataset must be 1..{_SEEDS_PER_SPLIT}, not {count}")
    first = list(_SPLITS).index(split) * _SEEDS_PER_SPLIT
    return range(first, first + count)


def _scene_entries(seed: int, number: int, split: str) -> list[dict[str, Any]]:
    """The rows about one scene; its `number` in the split rotates the questions."""
    plan = Plan(seed)
    questions = ask_everything(plan, turn=number)
    if split == "pretrain":
        asked = {question.prompt for question in questions}
        questions += [q for q in (ask_object_count(plan), ask_box_list(plan)) if q.prompt not in asked]
    return [_entry(seed, question) for question in questions]


def _entry(seed: int, question: Question) -> dict[str, Any]:
    turns = [
        {"role": "user", "content": f"<image>\n{question.prompt}"},
        {"role": "assistant", "content": question.answer},
    ]
    return {
        "task": question.task,
        "source": "synthetic",
        "image": seed,
        "conversations": json.dumps(turns),
        "metadata": json.dumps({"seed": seed, **question.metadata}),
    }
