"""Scenes with their masks, and their scores by plain `COCOeval` on those masks: the oracle of average precision.

    python -m tests.helpers.coco_scenes

prints the values that test_instances.py holds.
"""

import contextlib
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SIDE = 64
KINDS = ("usual", "crowded", "duplicates", "no answer", "nothing", "invented", "merged", "blank", "many")


@dataclass
class Scene:
    """Masks (SIDE, SIDE) bool of an image's objects and of an answer, and the answer's scores."""

    truths: list[np.ndarray] = field(default_factory=list)
    masks: list[np.ndarray] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)


def box(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """A (SIDE, SIDE) bool mask of a rectangle; parts outside the image are cut."""
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = True
    return mask


def scenes(count: int = 45, seed: int = 0) -> list[Scene]:
    """Scenes of each of `KINDS` in turn. Scores have one decimal, so that many are equal."""
    rng = random.Random(seed)
    return [_scene(rng, KINDS[number % len(KINDS)]) for number in range(count)]


def _scene(rng: random.Random, kind: str) -> Scene:
    scene = Scene()
    if kind in ("nothing", "invented"):
        scene.masks = [box(*_corners(rng))] if kind == "invented" else []
    else:
        for _ in range(40 if kind in ("crowded", "many") else rng.randint(1, 8)):
            left, top, right, bottom = _corners(rng, 20 if kind == "crowded" else 9)
            scene.truths.append(box(left, top, right, bottom))
            for _ in range({"no answer": 0, "duplicates": 2}.get(kind, int(rng.random() < 0.8))):
                by = [rng.choice((-2, -1, 0, 0, 1, 2)) if rng.random() < 0.5 else 0 for _ in range(4)]
                scene.masks.append(box(left + by[0], top + by[1], right + by[2], bottom + by[3]))
    if kind == "merged" and len(scene.truths) > 1:
        scene.masks = [scene.truths[0] | scene.truths[1]]
    if kind == "blank":
        scene.truths.append(box(0, 0, 0, 0))
        scene.masks.append(box(0, 0, 0, 0))
    rng.shuffle(scene.masks)
    scene.scores = [rng.randint(0, 10) / 10 for _ in scene.masks]
    return scene


def _corners(rng: random.Random, longest: int = 16) -> tuple[int, int, int, int]:
    left, top = rng.randint(0, SIDE - 8), rng.randint(0, SIDE - 8)
    return left, top, left + rng.randint(3, longest), top + rng.randint(3, longest)


def coco_scores(images: Sequence[Scene]) -> dict[str, float]:
    """AP, AP50 and AP75 by COCOeval with its defaults, as `pycocotools` is used in every paper."""
    evaluator = COCOeval(*_datasets(images), "segm")
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return dict(zip(("ap", "ap50", "ap75"), map(float, evaluator.stats), strict=False))


def _datasets(images: Sequence[Scene]) -> tuple[COCO, COCO]:
    truths, answers = [], []
    for number, image in enumerate(images):
        for mask in image.truths:
            common = {"image_id": number, "category_id": 1, "segmentation": encode(mask), "iscrowd": 0}
            truths.append({"id": len(truths) + 1, "area": int(mask.sum()), **common})
        for mask, score in zip(image.masks, image.scores, strict=True):
            answers.append({"image_id": number, "category_id": 1, "segmentation": encode(mask), "score": score})
    dataset = COCO()
    sizes = [{"id": number, "height": SIDE, "width": SIDE} for number in range(len(images))]
    dataset.dataset = {"images": sizes, "annotations": truths, "categories": [{"id": 1, "name": "object"}]}
    with contextlib.redirect_stdout(io.StringIO()):
        dataset.createIndex()
        return dataset, dataset.loadRes(answers)


def encode(mask: np.ndarray) -> dict:
    """A mask as COCO's compressed run lengths, apart from the package's own encoder."""
    return coco.encode(np.asfortranarray(mask.astype(np.uint8)))


if __name__ == "__main__":
    print({count: coco_scores(scenes(count)) for count in (45, 27)})
