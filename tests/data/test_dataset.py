"""Rows from every kind of source, and every spelling of a row as a sample."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest

from satlisa.data.dataset import COLUMNS, load_rows
from satlisa.data.fingerprint import rows_key
from satlisa.data.rows import read_sample
from satlisa.data.sample import RowError
from satlisa.data.sampler import IndexedSampler
from satlisa.errors import SatlisaError
from tests.helpers.dataset_fixtures import as_dataset, make_row, png, write_parquet, write_saved


def listing(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


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


def converted(tmp_path: Path) -> set[str]:
    """The splits of which there are Arrow files in the cache."""
    return {path.stem.split("-")[-1] for path in (tmp_path / "cache").rglob("*.arrow")}


@pytest.mark.parametrize("card", [False, True])
def test_only_the_split_that_is_asked_for_is_converted(card: bool, tmp_path: Path, own_cache: None) -> None:
    folder = tmp_path / "set"
    write_parquet(folder, {"train": 3, "validation": 2, "test": 1})
    if card:  # says how large the splits are
        splits = "".join(f"  - {{name: {name}, num_examples: {n}}}\n" for name, n in (("train", 3), ("validation", 2)))
        files = "".join(f"  - {{split: {name}, path: data/{name}-*}}\n" for name in ("train", "validation", "test"))
        configs = f"configs:\n- config_name: default\n  data_files:\n{files}"
        (folder / "README.md").write_text(f"---\n{configs}dataset_info:\n  splits:\n{splits}---\n")
    assert len(load_rows(str(folder), "val")) == 2 and converted(tmp_path) == {"validation"}
    assert len(load_rows(str(folder), "train")) == 3 and converted(tmp_path) == {"validation", "train"}
    assert [len(load_rows(str(folder), name)) for name in ("validation", "test")] == [2, 1]


def test_splits_that_were_converted_together_are_used(tmp_path: Path, own_cache: None) -> None:
    folder = tmp_path / "set"
    write_parquet(folder, {"train": 3, "validation": 2})
    datasets.load_dataset(str(folder.absolute()))
    before = set((tmp_path / "cache").rglob("*.arrow"))
    assert len(load_rows(str(folder), "validation")) == 2
    assert set((tmp_path / "cache").rglob("*.arrow")) == before


def test_a_source_is_optional(tmp_path: Path, own_cache: None) -> None:
    as_dataset(2).remove_columns("source").save_to_disk(str(tmp_path / "set"))
    rows = load_rows(str(tmp_path / "set"), "train")
    assert read_sample(rows[1], 1).source == "" and rows_key(IndexedSampler(rows))


def test_sequences_of_objects(tmp_path: Path, own_cache: None) -> None:
    """`datasets` stores them as objects of lists."""
    turn = {"role": datasets.Value("string"), "content": datasets.Value("string")}
    features = datasets.Features(
        {
            **dict.fromkeys(("task", "source", "metadata"), datasets.Value("string")),
            "image": datasets.Image(),
            "conversations": {name: datasets.List(kind) for name, kind in turn.items()},
        }
    )
    rows = [make_row(conversations={"role": ["user", "assistant"], "content": ["Segment", "Here."]})]
    datasets.Dataset.from_list(rows, features=features).save_to_disk(str(tmp_path / "set"))
    sample = read_sample(load_rows(str(tmp_path / "set"), "train")[0], 0)
    assert (sample.turns[0].text, sample.answer) == ("Segment", "Here.")


def test_mask_columns_of_datasets(tmp_path: Path, own_cache: None) -> None:
    """The `Image` type, which `datasets` would decode; and paths, which must lie in the dataset's folder."""
    rows = [make_row(metadata="{}", mask={"bytes": png((255, 255, 255)), "path": None})]
    table = (
        datasets.Dataset.from_list(rows).cast_column("image", datasets.Image()).cast_column("mask", datasets.Image())
    )
    table.save_to_disk(str(tmp_path / "set"))
    assert len(read_sample(load_rows(str(tmp_path / "set"), "train")[0], 0).regions) == 1
    folder = tmp_path / "lines"
    folder.mkdir()
    for place in (folder, tmp_path):
        (place / "m.png").write_bytes(png((255, 255, 255)))
    (folder / "a.png").write_bytes(png())
    names = ("m.png", "../m.png", str(tmp_path / "m.png"))
    lines = [json.dumps(make_row(metadata="{}", image="a.png", mask=name)) for name in names]
    (folder / "train.jsonl").write_text("\n".join(lines))
    found = load_rows(str(folder), "train")
    assert len(read_sample(found[0], 0).regions) == 1
    for index in (1, 2):
        with pytest.raises(RowError, match=r"`mask` path .* leads outside the dataset's folder"):
            read_sample(found[index], index)
