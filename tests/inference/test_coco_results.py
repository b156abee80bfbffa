"""COCO's results, read by pycocotools."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco
from pycocotools.coco import COCO

from satlisa.errors import SatlisaError
from satlisa.inference.coco_results import check_replaceable, dataset_file, write_coco
from satlisa.inference.table import Table

PROMPTS = ("Segment the buildings", "Segment the roads")


def packed(mask: np.ndarray) -> dict[str, Any]:
    found = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": found["counts"].decode()}


def table_of(path: Path, answers: dict[tuple[str, str], list[np.ndarray] | str]) -> Path:
    """A table of masks, or of an error."""
    rows = []
    for (image, prompt), masks in answers.items():
        shapes = [] if isinstance(masks, str) else [packed(mask) for mask in masks]
        row = {
            "image": image, "prompt": prompt, "text": "t", "masks": shapes, "width": 6, "height": 4, "bytes": 1,
            "boxes": [coco.toBbox(shape).astype(int).tolist() for shape in shapes],
            "scores": [0.5, None][: len(shapes)], "error": masks if isinstance(masks, str) else None,
        }  # fmt: skip
        rows.append(row)
    with Table(path, {}) as table:
        table.add(rows)
    return path


def test_pycocotools_loads_the_results(tmp_path: Path) -> None:
    one, two = np.zeros((2, 4, 6), dtype=bool)
    one[1:3, 2:5] = True
    two[0, 0] = two[3, 5] = True
    answers: dict[tuple[str, str], list[np.ndarray] | str] = {
        ("broken.jpg", PROMPTS[0]): "not an image",
        ("a.jpg", PROMPTS[0]): [one, two],
        ("a.jpg", PROMPTS[1]): [],
        ("b.jpg", PROMPTS[1]): [np.zeros((4, 6), dtype=bool)],
    }
    table, results = table_of(tmp_path / "r.jsonl", answers), tmp_path / "r.json"
    assert write_coco(table, PROMPTS, results) == 3

    truth = COCO(str(dataset_file(results)))
    loaded = truth.loadRes(str(results))
    assert {image["id"]: image["file_name"] for image in truth.dataset["images"]} == {1: "a.jpg", 2: "b.jpg"}
    assert [category["name"] for category in truth.loadCats([1, 2])] == list(PROMPTS)
    found = [loaded.anns[number] for number in loaded.getAnnIds()]
    assert [(f["image_id"], f["category_id"], f["score"], f["bbox"]) for f in found] == [
        (1, 1, 0.5, [2, 1, 3, 2]),
        (1, 1, 0.0, [0, 0, 6, 4]),
        (2, 2, 0.5, [0, 0, 0, 0]),
    ]
    assert np.array_equal(loaded.annToMask(found[0]), one) and np.array_equal(loaded.annToMask(found[1]), two)
    about = truth.dataset["info"]["description"]
    assert "category is the prompt" in about and "no confidence" in about


def test_only_our_files_are_replaced(tmp_path: Path) -> None:
    table, results = table_of(tmp_path / "r.jsonl", {}), tmp_path / "r.json"
    check_replaceable(results)
    for name in ("r.json", "r.dataset.json"):
        (tmp_path / name).write_text('{"info": {"description": "mine"}}')
        with pytest.raises(SatlisaError, match=rf"{name} exists and is not of an earlier run; name another"):
            check_replaceable(results)
        (tmp_path / name).unlink()
    write_coco(table, PROMPTS, results)
    assert json.loads(results.read_text()) == []
    check_replaceable(results)
