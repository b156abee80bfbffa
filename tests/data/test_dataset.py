"""Rows from every kind of source, and every spelling of a row as a sample."""

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from satlisa.data.dataset import COLUMNS, load_rows
from satlisa.data.rows import read_sample
from satlisa.data.sample import RowError
from satlisa.errors import SatlisaError
from satlisa.training.fault_tolerance.skipped_rows import Skips

SQUARE = [[100, 100], [200, 100], [200, 200], [100, 200]]
SQUARE_FRACTIONS = [[0.1, 0.1], [0.2, 0.1], [0.2, 0.2], [0.1, 0.2]]


def square(x: int, y: int, side: int) -> list[int]:
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def png(color: tuple[int, int, int] = (10, 20, 30), size: tuple[int, int] = (64, 48)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, color).save(stream, "PNG")
    return stream.getvalue()


def make_row(task: str = "building_segmentation", answer: str = "Two buildings.", **changes: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": "<image>\nSegment"}, {"role": "assistant", "content": answer}]
    row = {
        "task": task,
        "source": "test",
        "image": {"bytes": png(), "path": None},
        "conversations": json.dumps(turns),
        "metadata": json.dumps({"polygons": [SQUARE, square(500, 500, 100)]}),
    }
    return row | changes


def tops(sample: Any) -> list[tuple[float, float]]:
    """The (y, x) corner of each region."""
    return [tuple(np.concatenate(region).min(axis=0)[::-1].tolist()) for region in sample.regions]  # type: ignore[misc]


def test_a_semantic_row_has_one_region() -> None:
    sample = read_sample(make_row(), 7)
    assert (sample.index, sample.task, sample.source) == (7, "building_segmentation", "test")
    assert [(turn.role, turn.text) for turn in sample.turns] == [("user", "Segment")]
    assert (sample.answer, sample.left_out) == ("Two buildings.", 0)
    assert (sample.image.mode, sample.image.size) == ("RGB", (64, 48))
    assert len(sample.regions) == 1 and len(sample.regions[0]) == 2
    assert sample.regions[0][0].tolist() == SQUARE_FRACTIONS


def test_an_instance_row_has_a_region_per_object() -> None:
    objects = [
        {"label": "late", "polygon": square(10, 800, 50)},
        {"label": "right", "polygon": square(600, 100, 50)},
        {"label": "two parts", "segmentation": [square(300, 700, 30), square(300, 100, 30)]},
        {"label": "boxed", "bbox": [0, 300, 90, 390]},
    ]
    sample = read_sample(make_row("instance_segmentation", metadata={"objects": objects}), 0)
    assert tops(sample) == [(0.1, 0.3), (0.1, 0.6), (0.3, 0.0), (0.8, 0.01)]
    assert [len(region) for region in sample.regions] == [2, 1, 1, 1]


def test_the_largest_instances_are_kept_in_reading_order() -> None:
    sides = [30, 90, 10, 60, 80]
    polygons = [square(100 * number, 900 - 150 * number, side) for number, side in enumerate(sides)]
    row = make_row("instance_segmentation", metadata=json.dumps({"polygons": polygons}))
    sample = read_sample(row, 0, max_instances=3)
    assert tops(sample) == [(0.3, 0.4), (0.45, 0.3), (0.75, 0.1)]
    assert sample.left_out == 2
    assert (len(read_sample(row, 0).regions), read_sample(row, 0).left_out) == (5, 0)


def test_instances_that_draw_nothing_are_counted() -> None:
    polygons = [[500, 500], [[5, 5], [9, 9]], SQUARE, square(3000, 10, 50), []]
    sample = read_sample(make_row("instance_segmentation", metadata={"polygons": polygons}), 0)
    assert (tops(sample), sample.left_out) == ([(0.1, 0.1)], 4)
    with pytest.raises(RowError, match="row 3: `metadata` holds 1 polygon, none of which covers any of the image"):
        read_sample(make_row(metadata={"polygons": [[[5, 5], [9, 9]]]}), 3)


def test_the_task_decides_what_polygons_mean() -> None:
    flood = make_row("flood_assessment", answer="Yes, <SEG> at [1, 2, 3, 4].")
    assert read_sample(flood, 0).regions == ()
    assert read_sample(flood, 0).answer == "Yes, <SEG> at [1, 2, 3, 4]."  # a text answer stays as it is
    named = read_sample(flood, 0, seg_tasks=["Flood_Assessment"])
    assert (len(named.regions), named.answer) == (1, "Yes, at.")
    caption = read_sample(make_row("image_captioning", metadata='{"objects": [{"label": "x"}]}'), 0)
    assert caption.regions == ()


@pytest.mark.parametrize("metadata", ["", "  ", None, "{}", "null", '{"polygons": []}', '{"objects": ["tree"]}'])
def test_a_segmentation_task_without_polygons_is_text(metadata: Any) -> None:
    sample = read_sample(make_row(answer="No buildings.", metadata=metadata), 0)
    assert (sample.regions, sample.answer) == ((), "No buildings.")


P3 = [[100, 100], [600, 100], [600, 700]]


@pytest.mark.parametrize(
    ("metadata", "answer", "message"),
    [
        ({"shapes": [P3]}, "Here.", "polygons under `shapes`"),
        ({"objects": {"a": {"outline": P3}}}, "Here.", r"polygons under `objects\.a\.outline`"),
        ({"annotation": [{"label": "x", "rings": [P3]}]}, "Here.", "polygons under `annotation"),
        ({}, "Here is <SEG>.", "<SEG> in its answer"),
        ({}, "It is at [(100,100),(600,100),(600,700)].", "JSON that cannot be read"),
    ],
)
def test_a_mask_sample_never_becomes_text_silently(metadata: Any, answer: str, message: str) -> None:
    with pytest.raises(RowError, match=message):
        read_sample(make_row(answer=answer, metadata=metadata), 0)


@pytest.mark.parametrize(
    "metadata",
    [
        {"objects": [None, {"polygon": P3}]},
        {"polygons": [P3, None]},
        {"polygons": json.dumps([P3])},
        {"objects": [2], "polygons": [P3]},
        {"instances": 3, "masks": [None, [None, *P3]]},
    ],
)
def test_nulls_counts_and_nested_json_cost_no_row(metadata: Any) -> None:
    (region,) = read_sample(make_row("instance_segmentation", metadata=json.dumps(metadata)), 0).regions
    assert [ring.tolist() for ring in region] == [[[0.1, 0.1], [0.6, 0.1], [0.6, 0.7]]]


def test_polygons_in_the_answer() -> None:
    answer = f"Found: {json.dumps([SQUARE, square(0, 0, 50)])}."
    sample = read_sample(make_row("instance_segmentation", answer, metadata=""), 0)
    assert (tops(sample), sample.answer) == ([(0.0, 0.0), (0.1, 0.1)], "Found.")
    both = read_sample(make_row(answer=answer, metadata={"masks": [square(700, 700, 50)]}), 0)
    assert (tops(both), both.answer) == ([(0.7, 0.7)], "Found.")  # the metadata goes first


def test_an_answer_of_coordinates_alone_gets_words() -> None:
    answer = json.dumps({"polygons": [SQUARE, square(500, 500, 100)]})
    assert read_sample(make_row(answer=answer, metadata=""), 0).answer == "Here is the mask."
    assert read_sample(make_row("instance_segmentation", answer, metadata=""), 0).answer == "Here are the masks."
    assert read_sample(make_row(answer=""), 0).answer == "Here is the mask."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metadata": "nan"}, r"row 812: `metadata` is not JSON \(starts with 'nan'\)"),
        ({"metadata": "NaN"}, "row 812: `metadata` is not a JSON object: found nan"),
        ({"metadata": float("nan")}, "row 812: `metadata` is not a JSON object: found nan"),
        ({"metadata": '{"polygons": [[1, 2, NaN, 4]]}'}, "`metadata` `polygons`: expected a finite number"),
        ({"metadata": {"polygons": "none"}}, "`metadata` `polygons`: expected polygons, found 'none'"),
        ({"metadata": {"rings": [SQUARE]}}, "`metadata` has polygons under `rings`, expected them under one of polyg"),
        ({"conversations": "[{"}, r"`conversations` is not JSON \(starts with '\[\{'\)"),
        ({"conversations": "[]"}, "`conversations` has no question with an answer"),
        ({"task": None}, "`task` is not a task's name: found None"),
        ({"image": None}, "`image` cannot be read: "),
        ({"image": {"bytes": None, "path": None}}, "`image` cannot be read: "),
        ({"image": {"bytes": png()[:60], "path": None}}, "`image` cannot be read: "),
        ({"image": {"bytes": b"hello", "path": None}}, "`image` cannot be read: "),
        ({"image": {"bytes": None, "path": "/nowhere/a.png"}}, "`image` cannot be read: .*/nowhere/a.png"),
    ],
)
def test_what_cannot_be_read_names_row_and_column(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RowError, match=message) as caught:
        read_sample(make_row(**changes), 812)
    assert caught.value.index == 812
    assert caught.value.column in COLUMNS
    assert isinstance(caught.value, SatlisaError) and isinstance(caught.value, ValueError)


def test_a_text_row_needs_an_answer() -> None:
    with pytest.raises(RowError, match="`conversations` has an empty answer"):
        read_sample(make_row("image_captioning", answer=" "), 0)


def test_skips_are_grouped_by_reason() -> None:
    skips = Skips()
    assert (len(skips), skips.summary()) == (0, [])
    skips.add(RowError(4, "image", "cannot be read: image a.png: no such file (here)"))
    for index, start in ((812, "nan"), (5, "{'a"), (17, "x"), (5, "{'a")):  # row 5 again, in the next epoch
        skips.add(RowError(index, "metadata", f"is not JSON (starts with {start!r})"))
    for index in range(20, 32):
        skips.add(RowError(index, "conversations", f"{600 + index} tokens, more than the 512 of max_seq_length"))
    assert len(skips) == 16
    assert skips.summary() == [
        "12 rows skipped: `conversations` 620 tokens, more than the 512 of max_seq_length, and alike "
        "(rows 20, 21, 22, 23, 24, 25, 26, 27, 28, 29 and 2 more)",
        "3 rows skipped: `metadata` is not JSON (rows 5, 17, 812)",
        "1 row skipped: `image` cannot be read: image a.png: no such file (here) (row 4)",
    ]


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Converted copies in a folder of the test; no network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def as_dataset(count: int, image: Any = None) -> datasets.Dataset:
    rows = [make_row(source=f"source {number}") for number in range(count)]
    if image:
        rows = [row | {"image": image} for row in rows]
        return datasets.Dataset.from_list(rows)
    return datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())


def listing(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


def write_parquet(folder: Path, splits: dict[str, int]) -> None:
    (folder / "data").mkdir(parents=True)
    for name, count in splits.items():
        as_dataset(count).to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")


def write_saved(folder: Path, splits: dict[str, int]) -> None:
    datasets.DatasetDict({name: as_dataset(count) for name, count in splits.items()}).save_to_disk(str(folder))


@pytest.mark.parametrize("write", [write_parquet, write_saved])
def test_folders(write: Any, tmp_path: Path, own_cache: None) -> None:
    folder = tmp_path / "set"
    write(folder, {"train": 3, "validation": 2})
    before = listing(folder)
    rows = load_rows(str(folder), "train")
    assert len(rows) == 3
    assert rows[2]["image"] == {"bytes": png(), "path": None}  # not decoded
    assert list(rows["task"]) == ["building_segmentation"] * 3
    assert read_sample(rows[2], 2).source == "source 2"
    assert [len(load_rows(str(folder), name)) for name in ("validation", "val", "valid", "dev")] == [2] * 4
    with pytest.raises(SatlisaError, match="no split 'test'; it has train, validation"):
        load_rows(str(folder), "test")
    assert listing(folder) == before  # nothing is written into the dataset's own folder


def test_a_folder_that_calls_its_validation_dev(tmp_path: Path, own_cache: None) -> None:
    write_saved(tmp_path / "set", {"train": 1, "dev": 2})
    assert len(load_rows(str(tmp_path / "set"), "validation")) == 2


def test_a_folder_of_json_with_paths(tmp_path: Path, own_cache: None) -> None:
    folder = tmp_path / "set"
    (folder / "tiles").mkdir(parents=True)
    (folder / "tiles" / "a.png").write_bytes(png((1, 2, 3)))
    lines = [json.dumps(make_row(image="tiles/a.png", source=str(number))) for number in range(2)]
    (folder / "train.jsonl").write_text("\n".join(lines))
    rows = load_rows(str(folder), "train")
    assert read_sample(rows[1], 1).image.getpixel((0, 0)) == (1, 2, 3)
    assert list(rows["task"]) == ["building_segmentation"] * 2


def test_missing_columns_are_named(tmp_path: Path, own_cache: None) -> None:
    as_dataset(1).rename_column("conversations", "messages").save_to_disk(str(tmp_path / "set"))
    message = "no column conversations; found task, source, image, messages, metadata"
    with pytest.raises(SatlisaError, match=message):
        load_rows(str(tmp_path / "set"), "train")


def test_folders_that_hold_no_dataset(tmp_path: Path, own_cache: None) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SatlisaError, match=r"empty: cannot be read as a dataset folder .*data/train-00000"):
        load_rows(str(tmp_path / "empty"), "train")
    (tmp_path / "broken" / "data").mkdir(parents=True)
    (tmp_path / "broken" / "data" / "train-00000-of-00001.parquet").write_bytes(b"no parquet")
    with pytest.raises(SatlisaError, match="broken: cannot be read as a dataset folder"):
        load_rows(str(tmp_path / "broken"), "train")
    with pytest.raises(SatlisaError, match=r"no such folder .*PRESET=demo"):
        load_rows(str(tmp_path / "nothing"), "train")
    (tmp_path / "file.parquet").write_bytes(b"")
    with pytest.raises(SatlisaError, match="expected a folder, found a file"):
        load_rows(str(tmp_path / "file.parquet"), "train")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectionError("Couldn't reach the Hub"), "hub cannot be reached .*Couldn't reach.*PRESET=demo"),
        (datasets.exceptions.DatasetNotFoundError("x"), "nor found on the Hugging Face hub; .*PRESET=demo"),
        (RuntimeError("Dataset scripts are no longer supported\nmore"), "cannot be loaded .Dataset scripts are no"),
    ],
)
def test_hub_failures_name_the_way_out(error: Exception, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset_builder", fail)
    with pytest.raises(SatlisaError, match=message) as caught:
        load_rows("someone/some-set", "train")
    assert "DATASET=" in str(caught.value) and "\n" not in str(caught.value)


def test_demo_rows_are_read(own_cache: None) -> None:
    rows = load_rows("demo", "val")
    assert set(COLUMNS) <= set(rows[0])
    samples = [read_sample(rows[index], index) for index in range(12)]
    assert any(sample.regions for sample in samples)
    assert len(rows["task"]) == len(rows)


def test_real_rows_are_all_read(shared_data: Path, own_cache: None) -> None:
    """Counts are those of the published annotation: no row is lost, and every mask row has its mask."""
    folder = shared_data / "satellite-mini"
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}")
    for split, count, masks in (("train", 342, 78), ("validation", 18, 5)):
        rows = load_rows(str(folder), split)
        samples = [read_sample(rows[index], index) for index in range(len(rows))]
        assert len(samples) == count
        buildings = [sample for sample in samples if sample.task == "building_segmentation"]
        assert (len(buildings), {len(sample.regions) for sample in buildings}) == (masks, {1})
        for sample in (sample for sample in samples if sample.task == "instance_segmentation"):
            said = int("".join(filter(str.isdigit, sample.answer)))
            assert said == len(sample.regions) + sample.left_out
            assert len(sample.regions) == min(said, 32)
        assert all(sample.answer and "<image>" not in sample.turns[-1].text for sample in samples)
        others = Counter(bool(sample.regions) for sample in samples if "segmentation" not in sample.task)
        assert others[True] == 0
