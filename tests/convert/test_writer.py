"""Rows → files."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from satlisa.convert import writer
from satlisa.convert.picture import Picture
from satlisa.convert.problems import Problems
from satlisa.convert.scene import Scene
from satlisa.convert.writer import write_dataset
from satlisa.errors import SatlisaError
from tests.helpers.dataset_fixtures import png

ROW = {"task": "x", "source": "", "metadata": "{}"}
ROW["conversations"] = '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]'


def scenes(count: int, size: int = 1000) -> list[Scene]:
    return [
        Scene(f"{n}.png", Picture(Path(f"{n}.png"), (64, 48), 1, png() + bytes(size)), (), split="train")
        for n in range(count)
    ]


def test_files_stay_below_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LARGEST_SHARD", 10_000)
    monkeypatch.setattr(writer, "_ROW_GROUP", 3_000)
    counts = write_dataset(tmp_path / "out", scenes(30), lambda _: iter([ROW]), Problems(), "# About")
    files = sorted((tmp_path / "out" / "data").iterdir())
    assert counts == {"train: x": 30} and len(files) > 3
    assert [path.name for path in files] == [f"train-{n:05}-of-{len(files):05}.parquet" for n in range(len(files))]
    rows = [row for path in files for row in pq.read_table(path).to_pylist()]
    assert [row["image"]["path"] for row in rows] == [f"{n}.png" for n in range(30)]
    assert all(sum(len(r["image"]["bytes"]) for r in pq.read_table(path).to_pylist()) <= 10_000 for path in files)


def test_a_row_that_training_refuses_is_not_written(tmp_path: Path) -> None:
    bad = {**ROW, "task": "roof_segmentation", "metadata": '{"polygons": [[[1, 2], [3, 4000], [5, 6]]]}'}
    with pytest.raises(SatlisaError, match=r"0\.png: row 0: `metadata`"):
        write_dataset(tmp_path / "out", scenes(1), lambda _: iter([bad]), Problems(), "")
    with pytest.raises(SatlisaError, match="nothing to convert"):
        write_dataset(tmp_path / "out", [], lambda _: iter([]), Problems(), "")
    assert not list(tmp_path.iterdir())


def test_an_image_larger_than_a_file_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LARGEST_SHARD", 100)
    with pytest.raises(SatlisaError, match="at most 100"):
        write_dataset(tmp_path / "out", scenes(1), lambda _: iter([ROW]), Problems(), "")
