"""Training from a stream: the rows of the dataset, each once an epoch, from any place on, in little memory."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_from_disk

from satlisa.config import ModelConfig
from satlisa.data.dataset import load_rows
from satlisa.data.sampler import IndexedSampler, Sampler, StreamingSampler
from satlisa.data.streaming import open_stream
from satlisa.errors import SatlisaError
from satlisa.training import train as run_module
from satlisa.training.fault_tolerance.checkpoint_files import list_checkpoints
from satlisa.training.loader import RowEncoder, StepLoader
from stress.kills import differences
from tests.helpers.runs import log_of, rows, settings, write_dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files of 9, 9 and 5 rows."""
    folder = tmp_path_factory.mktemp("dataset")
    made = [row for number, row in enumerate(rows(25)) if number % 10 != 9]
    write_dataset(folder, {"train": made, "validation": rows(3)})
    data = Dataset.from_parquet(str(next((folder / "data").glob("train*"))))
    for number, part in enumerate(((0, 9), (9, 18), (18, 23))):
        data.select(range(*part)).to_parquet(folder / "data" / f"train-{number:05d}-of-00003.parquet")
    (folder / "data" / "train-00000-of-00001.parquet").unlink()
    return folder


def numbers(sampler: Sampler, epoch: int = 0, start: int = 0) -> list[int]:
    return [row.index for row in sampler.rows(epoch, start)]


def test_a_stream_holds_the_same_rows(folder: Path) -> None:
    stream, indexed = open_stream(str(folder), "train"), IndexedSampler(load_rows(str(folder), "train"))
    assert isinstance(stream, StreamingSampler) and len(stream) == len(indexed) == 23
    for a, b in zip(stream.rows(0, 0), indexed.rows(0, 0), strict=True):
        assert a.index == b.index and a.fetch() == b.fetch()
    assert stream.row(11).fetch() == indexed.row(11).fetch()
    assert len(open_stream(str(folder), "validation")) == 3 and len(open_stream(str(folder), "val", limit=2)) == 2


@pytest.mark.parametrize("buffer", [1, 5, 100])
def test_order_and_place_of_a_stream(folder: Path, buffer: int) -> None:
    stream = open_stream(str(folder), "train", buffer=buffer, seed=3)
    orders = [numbers(stream, epoch) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(23)) for order in orders)
    assert (orders[0] != orders[1]) == (buffer > 1)
    assert all(abs(place - number) < buffer for place, number in enumerate(orders[0]))
    for start in (0, 1, 5, 12, 22, 23):
        assert numbers(stream, 1, start) == orders[1][start:]


@pytest.mark.integration
def test_training_from_a_stream_and_going_on(tiny_config: ModelConfig, folder: Path, tmp_path: Path) -> None:
    def train(name: str, **more: str) -> Path:
        made = settings(
            tiny_config, folder, tmp_path / name, STREAMING="1", SHUFFLE_BUFFER="7", GRAD_ACCUM="1", MAX_SKIP="0",
            CHECKPOINT_EVERY="1", KEEP_CHECKPOINTS="99", **more,
        )  # fmt: skip
        return run_module.train(made)

    whole = train("whole")
    assert [record["step"] for record in log_of(whole)] == list(range(1, 13))  # 23 rows / 4, twice
    assert differences(whole, train("workers", NUM_WORKERS="2")) == []
    place = next(place for place in list_checkpoints(whole) if place.name == "step-00000004")
    assert differences(whole, train("rest", RESUME=str(place))) == []
    indexed = settings(tiny_config, folder, tmp_path / "indexed", GRAD_ACCUM="1", MAX_STEPS="1")
    assert log_of(run_module.train(indexed))[0]["loss"] != log_of(whole)[0]["loss"]


def test_processes_share_a_stream_out(tiny_model: Any, folder: Path) -> None:
    encoder = RowEncoder(tiny_model.processor, tiny_model.segmenter.inputs, tiny_model.config)
    seen: list[list[set[int]]] = []
    for rank in (0, 1, 2):
        order = open_stream(str(folder), "train", buffer=6, seed=1)
        steps = StepLoader(order, encoder, 6, 2, rank=rank, world=3).steps()
        seen.append([{index for batch in loaded.batches for index in batch.indices} for loaded in steps])
    together = [set.union(*step) for step in zip(*seen, strict=True)]
    assert [sum(len(step) for step in steps) for steps in zip(*seen, strict=True)] == [6, 6, 6, 5]
    assert set.union(*together) == set(range(23))


@pytest.mark.integration
def test_formats_and_mistakes(folder: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    Dataset.from_parquet(str(folder / "data" / "train-00000-of-00003.parquet")).save_to_disk(str(saved))
    assert len(load_from_disk(str(saved))) == 9 and numbers(open_stream(str(saved), "train")) == list(range(9))
    assert len(open_stream("demo", "train", limit=4)) == 4
    lines = tmp_path / "lines"
    lines.mkdir()
    row = {"task": "t", "source": "s", "image": "a.png", "conversations": "[]", "metadata": "{}"}
    (lines / "train.jsonl").write_text("".join(json.dumps({**row, "source": str(n)}) + "\n" for n in range(5)))
    stream = open_stream(str(lines), "train")
    assert [ref.fetch()["source"] for ref in stream.rows(0, 0)] == list("01234")
    (lines / "train.jsonl").write_text(json.dumps({"task": "t"}) + "\n")
    with pytest.raises(SatlisaError, match="no column image"):
        open_stream(str(lines), "train")
    damaged = tmp_path / "damaged"
    (damaged / "data").mkdir(parents=True)
    content = bytearray((folder / "data" / "train-00000-of-00003.parquet").read_bytes())
    end = len(content) - 8 - int.from_bytes(content[-8:-4], "little")  # where the footer begins
    content[4:end] = bytes(end - 4)
    (damaged / "data" / "train.parquet").write_bytes(content)
    with pytest.raises(SatlisaError, match=r"failed after row \d+"):
        list(open_stream(str(damaged), "train").rows(0, 0))
