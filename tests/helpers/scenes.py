"""Synthetic scenes, their rows, and what is in them."""

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco

from satlisa.data.synthetic.painter import draw_scene
from satlisa.data.synthetic.plan import Plan, SceneObject
from satlisa.data.synthetic.rows import DemoRows, demo_rows, scene_seeds
from satlisa.demo.gallery import Exhibit

TASKS = {
    "scene_classification", "image_captioning", "visual_question_answering", "object_detection",
    "building_segmentation", "instance_segmentation", "flood_assessment",
}  # fmt: skip


@pytest.fixture(scope="session")
def plans() -> list[Plan]:
    return [Plan(seed) for seed in range(150)]


@pytest.fixture(scope="session")
def rows() -> DemoRows:
    return demo_rows("train", 120)


def texts(rows: DemoRows) -> list[tuple[str, str, str, dict[str, Any]]]:
    """(task, prompt, answer, metadata) of every row, read the way a user of the columns would; draws no image."""
    found = []
    columns = (rows[name] for name in ("task", "conversations", "metadata"))
    for task, conversation, metadata in zip(*columns, strict=True):
        user, assistant = json.loads(conversation)
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        prompt = user["content"].removeprefix("<image>\n")
        found.append((task, prompt, assistant["content"], json.loads(metadata)))
    return found


def filled(polygon: tuple[tuple[int, int], ...]) -> np.ndarray:
    image = Image.new("1", (1000, 1000))
    ImageDraw.Draw(image).polygon(list(polygon), fill=1)
    return np.asarray(image)


PHRASES = ["Is there flooding visible?", "Yes, 12 flooded buildings visible", "building [12, 345, 67, 890]"]


def unseen_scenes(count: int) -> list[Exhibit]:
    return [_unseen(seed) for seed in scene_seeds("validation", count)]


@cache
def _unseen(seed: int) -> Exhibit:
    return Exhibit(np.asarray(draw_scene(seed)), Plan(seed))


def drawn(thing: SceneObject, size: int) -> np.ndarray:
    """Oracle: pycocotools' mask of an object."""
    flat = [value * size / 1000 for point in thing.polygon for value in point]
    return coco.decode(coco.merge(coco.frPyObjects([flat], size, size))).astype(bool)
