"""Rows of the synthetic dataset: columns, splits, repeatable."""

import io
import json
import pickle
import re
from itertools import combinations

import pytest
from PIL import Image

from satlisa.data.synthetic.painter import draw_scene
from satlisa.data.synthetic.rows import DemoRows, demo_rows, scene_seeds
from satlisa.errors import SatlisaError
from tests.helpers.scenes import TASKS, texts


@pytest.mark.integration
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


@pytest.mark.integration
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


@pytest.mark.parametrize(
    ("split", "num_scenes", "named"), [("dev", None, "train, validation, test"), ("test", 0, "1..")]
)
def test_what_does_not_exist_is_refused(split: str, num_scenes: int | None, named: str) -> None:
    with pytest.raises(SatlisaError, match=re.escape(named)):
        demo_rows(split, num_scenes)


def test_pretraining_scenes_are_nobody_elses():
    seeds = {split: set(scene_seeds(split)) for split in ("pretrain", "train", "validation", "test")}
    assert sum(map(len, seeds.values())) == len(set().union(*seeds.values()))
    metadata = json.loads(demo_rows("validation", 1)[0]["metadata"])
    assert metadata["seed"] in seeds["validation"]
