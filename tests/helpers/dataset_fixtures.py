"""Rows with a mask, and datasets of them on disk."""

import io
import json
import socket
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

SQUARE = [[100, 100], [200, 100], [200, 200], [100, 200]]


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


def write_parquet(folder: Path, splits: dict[str, int]) -> None:
    (folder / "data").mkdir(parents=True)
    for name, count in splits.items():
        as_dataset(count).to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")


def write_saved(folder: Path, splits: dict[str, int]) -> None:
    datasets.DatasetDict({name: as_dataset(count) for name, count in splits.items()}).save_to_disk(str(folder))


@pytest.fixture
def no_network(own_cache: None, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The attempts to reach somebody; each test ends without one."""
    attempts: list[Any] = []

    def look_up(*where: Any, **_: Any) -> None:
        attempts.append(where)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(socket.socket, "connect", look_up)
    return attempts


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
