"""The synthetic scenes and their rows: the same for a seed, unambiguous, and answered rightly."""

import io
import json
import pickle
import re
from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from satlisa.data.synthetic.painter import draw_scene, paint
from satlisa.data.synthetic.plan import SCENE_CLASSES, Plan
from satlisa.data.synthetic.rows import DemoRows, demo_rows
from satlisa.errors import SatlisaError

TASKS = {
    "scene_classification", "image_captioning", "visual_question_answering", "object_detection",
    "building_segmentation", "instance_segmentation", "flood_assessment",
}  # fmt: skip


@pytest.fixture(scope="module")
def plans() -> list[Plan]:
    return [Plan(seed) for seed in range(150)]


@pytest.fixture(scope="module")
def rows() -> DemoRows:
    return demo_rows("train", 120)


def texts(rows: DemoRows) -> list[tuple[str, str, str, dict[str, Any]]]:
    """(task, prompt, answer, metadata) of every row, read the way a user of the columns would."""
    found = []
    for row in rows:
        user, assistant = json.loads(row["conversations"])
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        prompt = user["content"].removeprefix("<image>\n")
        found.append((row["task"], prompt, assistant["content"], json.loads(row["metadata"])))
    return found


def filled(polygon: tuple[tuple[int, int], ...]) -> np.ndarray:
    image = Image.new("1", (1000, 1000))
    ImageDraw.Draw(image).polygon(list(polygon), fill=1)
    return np.asarray(image)


def test_a_seed_always_gives_the_same_scene() -> None:
    first, again, other = draw_scene(7), draw_scene(7), draw_scene(8)
    assert first.tobytes() == again.tobytes() != other.tobytes()
    assert first.mode == "RGB" and first.size == (256, 256)
    assert Plan(7).objects == Plan(7).objects and Plan(7).scene_class == Plan(7).scene_class


def test_the_size_changes_the_picture_and_not_the_scene() -> None:
    large, small = draw_scene(3), draw_scene(3, size=128)
    assert small.size == (128, 128)
    halved = np.asarray(large.resize((128, 128), Image.Resampling.BOX), float)
    assert np.abs(halved - np.asarray(small, float)).mean() < 8


def test_every_class_turns_up_about_equally_often(plans: list[Plan]) -> None:
    counts = Counter(plan.scene_class for plan in plans)
    assert set(counts) == set(SCENE_CLASSES)
    assert min(counts.values()) >= 10


def test_structures_lie_inside_and_are_large_enough(plans: list[Plan]) -> None:
    for thing in (thing for plan in plans for thing in plan.objects):
        assert all(0 <= value <= 1000 for point in thing.polygon for value in point)
        assert all(isinstance(value, int) for point in thing.polygon for value in point)
        left, top, right, bottom = thing.box
        assert min(right - left, bottom - top) >= 14 / 256 * 1000
        assert filled(thing.polygon).sum() >= (14 / 256 * 1000) ** 2 * 0.5


def test_structures_do_not_touch(plans: list[Plan]) -> None:
    for plan in plans[:40]:
        for one, other in combinations([filled(thing.polygon) for thing in plan.objects], 2):
            assert not (one & other).any()


def test_counts_stay_moderate(plans: list[Plan]) -> None:
    for plan in plans:
        labels = Counter(thing.label for thing in plan.objects)
        assert labels["building"] <= 8 and labels["plane"] <= 4
        assert not labels["plane"] or plan.scene_class == "Airport"
    assert any(not plan.objects for plan in plans)


def test_flooded_buildings_stand_in_the_flood_and_the_others_do_not(plans: list[Plan]) -> None:
    seen: Counter[bool] = Counter()
    for plan in plans:
        for structure in plan.structures:
            x, y = structure.outline.T.astype(int)
            if plan.flood is None:
                assert not structure.flooded
            else:
                assert (plan.flood[y, x] > 0).all() == structure.flooded == (plan.flood[y, x] > 0).any()
                seen[structure.flooded] += 1
    assert seen[True] > 20 and seen[False] > 20


def test_an_object_is_painted_where_its_polygon_says() -> None:
    plan = next(p for p in map(Plan, range(100)) if p.scene_class == "Airport" and p.flood is None)
    pixels = np.asarray(paint(plan).convert("L"), float)
    planes = [filled(thing.polygon) for thing in plan.objects if thing.label == "plane"]
    assert planes
    for mask in planes:
        small = np.asarray(Image.fromarray(mask).resize((256, 256)))
        assert pixels[small].mean() > 175  # white bodies ...
        left, right = np.flatnonzero(small.any(0))[[0, -1]]
        top, bottom = np.flatnonzero(small.any(1))[[0, -1]]
        around = ~small[top : bottom + 1, left : right + 1]
        assert pixels[top : bottom + 1, left : right + 1][around].mean() < 165  # ... on a darker apron


def test_rows_have_the_columns_of_the_real_dataset(rows: DemoRows) -> None:
    for index in range(0, len(rows), 40):
        row = rows[index]
        assert set(row) == {"task", "source", "image", "conversations", "metadata"}
        assert row["source"] == "synthetic" and row["image"]["path"] is None
        picture = Image.open(io.BytesIO(row["image"]["bytes"]))
        assert picture.format == "PNG" and picture.size == (256, 256)
        scene = draw_scene(json.loads(row["metadata"])["seed"])
        assert picture.convert("RGB").tobytes() == scene.tobytes()
    assert {task for task, *_ in texts(rows)} == TASKS


def test_rows_end_and_travel_to_other_processes() -> None:
    rows = demo_rows("validation", 3)
    assert len(list(rows)) == len(rows)
    with pytest.raises(IndexError):
        rows[len(rows)]
    assert pickle.loads(pickle.dumps(rows))[-1] == rows[-1]


def test_the_same_split_is_the_same_again(rows: DemoRows) -> None:
    again = demo_rows("train", 120)
    assert [again[i] for i in range(0, len(rows), 60)] == [rows[i] for i in range(0, len(rows), 60)]


def test_splits_share_no_scene() -> None:
    seeds = {
        split: {metadata["seed"] for *_, metadata in texts(demo_rows(split, 5))}
        for split in ("train", "validation", "test", "pretrain")
    }
    assert all(len(found) == 5 for found in seeds.values())
    assert all(not seeds[one] & seeds[other] for one, other in combinations(seeds, 2))


def test_flood_answers_are_balanced(rows: DemoRows) -> None:
    answers = [answer for task, _, answer, _ in texts(rows) if task == "flood_assessment"]
    assert len(answers) == 120
    assert all(re.fullmatch(r"No flooding visible|Yes, .*flood.* visible", answer) for answer in answers)
    assert 0.35 < np.mean([answer.startswith("Yes") for answer in answers]) < 0.55


def test_answers_count_what_the_scene_holds(rows: DemoRows) -> None:
    checked: Counter[str] = Counter()
    for task, prompt, answer, metadata in texts(rows):
        plan = Plan(metadata["seed"])
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


@pytest.mark.parametrize(
    ("split", "num_scenes", "named"), [("dev", None, "train, validation, test"), ("test", 0, "1..")]
)
def test_what_does_not_exist_is_refused(split: str, num_scenes: int | None, named: str) -> None:
    with pytest.raises(SatlisaError, match=re.escape(named)):
        demo_rows(split, num_scenes)
