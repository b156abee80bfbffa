"""A scene → rows: questions about it, with answers and masks, by task."""

import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from satlisa.convert.problems import Problems
from satlisa.convert.scene import Scene, Spoken, Thing
from satlisa.convert.templates import Templates

TASKS = ("segmentation", "instances", "boxes", "counts", "presence")
"""What can be asked about objects."""

_NO_OUTLINE = "classes of an image not asked for masks, because an object of them has a box alone"
_TOO_MANY = "images not asked for boxes, because they have more than --max_boxes objects"
_GROUP = "classes of an image not counted, because a group of them is one outline"


@dataclass(frozen=True)
class Asking:
    """What is asked.

    Attributes:
        templates: the wordings.
        tasks: some of `TASKS`.
        negatives: the images that are asked for the masks of a class that they do not have (`choose_negatives`).
        boxed: the classes that are never asked for masks (`find_boxed`).
        max_boxes: most boxes in an answer; a box is 17 tokens, and 220 remain beside the image.
        source: the rows' column of that name.
    """

    templates: Templates
    tasks: Sequence[str] = TASKS[:4]
    negatives: Collection[str] = ()
    boxed: Collection[str] = ()
    max_boxes: int = 12
    source: str = ""


def ask(scene: Scene, how: Asking, problems: Problems) -> Iterator[dict[str, Any]]:
    """The rows about a scene, all but the image."""
    for spoken in scene.spoken:
        yield _row(_worded(spoken, scene, how), {}, how)
    if scene.things is None:
        return
    by_label: dict[str, list[Thing]] = {}
    for thing in scene.things:
        by_label.setdefault(thing.label, []).append(thing)
    for label, things in by_label.items():
        if any(thing.shape is None for thing in things) and {"segmentation", "instances"} & set(how.tasks):
            problems.add(_NO_OUTLINE, f"{scene.name}: {label}", is_fault=False)
        elif any(thing.is_visible for thing in things):
            yield from _ask_for_masks(scene, label, things, how)
    counted = [label for label, things in by_label.items() if not any(thing.is_group for thing in things)]
    for label in (label for label in by_label if label not in counted):
        problems.add(_GROUP, f"{scene.name}: {label}", is_fault=False)
    yield from _ask_in_words(scene, by_label, len(counted) == len(by_label), how, problems)
    yield from _ask_in_vain(scene, by_label, how)


def choose_negatives(scenes: Sequence[Scene], share: float, templates: Templates) -> frozenset[str]:
    """The names of the images that are asked in vain: all without objects, and a share of those that lack a class."""
    empty = {scene.name for scene in scenes if scene.things is not None and not scene.things}
    lacking = [
        scene.name for scene in scenes if scene.things and {thing.label for thing in scene.things} < set(scene.labels)
    ]
    some = templates.chance("negatives").sample(sorted(lacking), math.ceil(share * len(lacking)))
    return frozenset({*(empty if share else ()), *some})


def find_boxed(scenes: Sequence[Scene]) -> frozenset[str]:
    """The classes whose objects have boxes alone: where no mask is ever taught, "there are none" is not either."""
    outlined = {thing.label: False for scene in scenes for thing in scene.things or ()}
    outlined |= {thing.label: True for scene in scenes for thing in scene.things or () if thing.shape is not None}
    if outlined and not any(outlined.values()):
        return frozenset({*outlined, *(label for scene in scenes for label in scene.labels)})
    return frozenset(label for label, has_outline in outlined.items() if not has_outline)


def _worded(spoken: Spoken, scene: Scene, how: Asking) -> Spoken:
    """A question of the format, from the templates where the format has none."""
    if spoken.question:
        return spoken
    blanks = {"thing": how.templates.name(spoken.answer), "text": spoken.answer}
    question = how.templates.question(spoken.task, scene.name, blanks)
    return Spoken(spoken.task, question, how.templates.answer(spoken.task, scene.name, blanks))


def _ask_for_masks(scene: Scene, label: str, things: Sequence[Thing], how: Asking) -> Iterator[dict[str, Any]]:
    """One mask of a class, and a mask of each object of it."""
    words, key = how.templates, f"{scene.name} {label}"
    objects = {"objects": [{"label": words.name(label), **(thing.shape or {})} for thing in things]}
    if "segmentation" in how.tasks:
        yield _row(_said(words, "segmentation", key, words.about(label), task_name(label)), objects, how)
    if "instances" in how.tasks and not any(thing.is_group for thing in things):
        blanks = words.counted(label, len(things))
        yield _row(_said(words, "instance_segmentation", key, blanks), objects, how)


def _ask_in_words(
    scene: Scene, by_label: Mapping[str, Sequence[Thing]], is_counted: bool, how: Asking, problems: Problems
) -> Iterator[dict[str, Any]]:
    """Boxes, counts, and whether there are objects of a class."""
    words, things = how.templates, scene.things or ()
    if "boxes" in how.tasks and is_counted:
        if len(things) > how.max_boxes:
            problems.add(_TOO_MANY, scene.name, is_fault=False)
        else:
            boxes = [{"label": words.name(t.label), "bbox": [round(side) for side in t.box]} for t in _in_order(things)]
            listed = "; ".join(f"{box['label']} {box['bbox']}" for box in boxes) or words.word("nothing")
            said = _said(words, "boxes", scene.name, {"boxes": listed}, "object_detection")
            yield _row(said, {"objects": boxes}, how)
    if "counts" in how.tasks and is_counted:
        counts = Counter(thing.label for thing in _in_order(things))
        said = _said(words, "counts", scene.name, {"counts": words.listed(counts)}, "object_detection")
        yield _row(said, {}, how)
    if "presence" in how.tasks and scene.labels:
        label = words.chance(f"presence {scene.name}").choice(list(scene.labels))
        blanks = {**words.about(label), "yes_no": words.word("yes" if label in by_label else "no")}
        yield _row(_said(words, "presence", scene.name, blanks, "visual_question_answering"), {}, how)


def _ask_in_vain(scene: Scene, by_label: Mapping[str, Sequence[Thing]], how: Asking) -> Iterator[dict[str, Any]]:
    """The masks of a class that is not there."""
    words = how.templates
    absent = [label for label in scene.labels if label not in by_label and label not in how.boxed]
    tasks = [task for task in ("segmentation", "instances") if task in how.tasks]
    chance = words.chance(f"negative {scene.name}")
    if not absent or not tasks or scene.name not in how.negatives:
        return
    label, kind = chance.choice(absent), chance.choice(tasks)
    task = "segmentation" if kind == "segmentation" else "instance_segmentation"
    key, blanks = f"{scene.name} {label}", words.about(label)
    asked = words.question(task, key, {**blanks, "count": "", "is_count": ""})
    name = task_name(label) if task == "segmentation" else task
    yield _row(Spoken(name, asked, words.answer("no_objects", key, blanks)), {"polygons": []}, how)


def _said(words: Templates, template: str, key: str, blanks: Mapping[str, str], task: str = "") -> Spoken:
    question, answer = words.question(template, key, blanks), words.answer(template, key, blanks)
    return Spoken(task or template, question, answer)


def task_name(label: str) -> str:
    """The task of a class's masks: "building_segmentation". "instance" in it would mean a mask per object."""
    name = re.sub(r"\W+", "_", label.casefold()).strip("_")
    return "semantic_segmentation" if "instance" in name or not name else f"{name}_segmentation"


def _in_order(things: Sequence[Thing]) -> list[Thing]:
    """Top to bottom, then left to right."""
    return sorted(things, key=lambda thing: (thing.box[1], thing.box[0]))


def _row(spoken: Spoken, metadata: Mapping[str, Any], how: Asking) -> dict[str, Any]:
    turns = [
        {"role": "user", "content": f"<image>\n{spoken.question}"},
        {"role": "assistant", "content": spoken.answer},
    ]
    return {
        "task": spoken.task,
        "source": how.source,
        "conversations": json.dumps(turns, ensure_ascii=False),
        "metadata": json.dumps(metadata, ensure_ascii=False, allow_nan=False, separators=(",", ":")),
    }
