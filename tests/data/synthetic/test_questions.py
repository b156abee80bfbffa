"""Questions about synthetic scenes, and their answers."""

import re
from collections import Counter
from functools import cache

import numpy as np
import pytest

from satlisa.data.synthetic.plan import SCENE_CLASSES, Plan
from satlisa.data.synthetic.rows import DemoRows, demo_rows
from tests.helpers.scenes import TASKS, texts

pytestmark = pytest.mark.integration


def test_flood_answers_are_balanced(rows: DemoRows) -> None:
    answers = [answer for task, _, answer, _ in texts(rows) if task == "flood_assessment"]
    assert len(answers) == 120
    assert all(re.fullmatch(r"No flooding visible|Yes, .*flood.* visible", answer) for answer in answers)
    assert 0.35 < np.mean([answer.startswith("Yes") for answer in answers]) < 0.55


def test_answers_count_what_the_scene_holds(rows: DemoRows) -> None:
    checked: Counter[str] = Counter()
    plan_of = cache(Plan)  # a scene has several rows
    for task, prompt, answer, metadata in texts(rows):
        plan = plan_of(metadata["seed"])
        labels = Counter(thing.label for thing in plan.objects) + Counter(road=plan.num_roads)
        told = {noun.rstrip("s"): int(number) for number, noun in re.findall(r"(\d+) (building|plane|road)", answer)}
        if task == "building_segmentation":
            assert told == {"building": len(metadata["polygons"])} == {"building": labels["building"]}
        elif task == "instance_segmentation":
            assert told == Counter(thing["label"] for thing in metadata["objects"])
            polygons = [tuple(map(tuple, thing["polygon"])) for thing in metadata["objects"]]
            assert polygons == [thing.polygon for thing in plan.objects]
        elif prompt == "What objects are visible?" or task == "image_captioning":
            assert told == labels
        elif prompt.startswith("List the boxes"):
            boxes = [list(map(int, re.findall(r"\d+", part))) for part in answer.split(";") if "[" in part]
            assert len(boxes) == len(plan.objects) and all(side % 10 == 0 for box in boxes for side in box)
            exact = [list(thing.box) for thing in plan.objects]  # told in tens: a pixel is 4 of these units wide
            assert np.abs(np.array(boxes) - np.array(exact)).max(initial=0) <= 5
            assert boxes == sorted(boxes, key=lambda box: (box[1], box[0]))
            assert boxes == [thing["bbox"] for thing in metadata["objects"]]
        elif task == "scene_classification":
            assert answer == plan.scene_class
        elif task == "flood_assessment":
            flooded = sum(thing.flooded and thing.label == "building" for thing in plan.objects)
            assert answer.startswith("Yes") == (plan.flood is not None)
            assert [int(number) for number in re.findall(r"\d+", answer)] == [flooded] * (flooded > 0)
        else:
            continue
        checked[task] += 1
    assert set(checked) == TASKS - {"visual_question_answering"}


def test_visual_questions_have_both_answers() -> None:
    answers = {
        (prompt, answer)
        for task, prompt, answer, _ in texts(demo_rows("test", 60))
        if task == "visual_question_answering"
    }
    assert {answer for prompt, answer in answers if prompt.startswith(("Are", "Is"))} == {"Yes", "No"}
    assert {answer for prompt, answer in answers if prompt.startswith("What")} <= set(SCENE_CLASSES)


def test_pretraining_asks_both_detection_forms_of_every_scene() -> None:
    counts = Counter(
        (metadata["seed"], prompt)
        for task, prompt, _, metadata in texts(demo_rows("pretrain", 5))
        if task == "object_detection"
    )
    assert len(counts) == 10 and set(counts.values()) == {1}
