"""What tells one run from another: contents, not places."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, Image, Value

from satlisa.config import ModelConfig
from satlisa.data import fingerprint
from satlisa.data.dataset import load_rows
from satlisa.data.fingerprint import texts_key
from satlisa.data.sampler import IndexedSampler, StreamingSampler
from satlisa.data.streaming import StreamedRows, open_stream
from satlisa.runtime.fingerprint import differences
from satlisa.training.fault_tolerance.run_identity import identify, run_differences
from satlisa.training.settings import TrainConfig
from tests.helpers.runs import rows, write_dataset


def identity(dataset: Path | str, config: ModelConfig, *, streaming: bool = False, **more: str) -> dict[str, Any]:
    models = {"VLM_MODEL": config.vlm_model_id, "SAM_MODEL": config.sam_model_id}
    made = TrainConfig.from_env({"DATASET": str(dataset), "STREAMING": str(int(streaming)), **models, **more})
    name = str(dataset)
    order = (
        open_stream(name, "train", made.max_samples, 5, 0)
        if streaming
        else IndexedSampler(load_rows(name, "train"), 0, 0)
    )
    return identify(made.resolve(2), made.new_model_config(), order)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "data", {"train": rows(20)})
    return tmp_path / "data"


@pytest.mark.parametrize("streaming", [False, True])
def test_a_copy_is_the_same(dataset: Path, tiny_config: ModelConfig, tmp_path: Path, *, streaming: bool) -> None:
    shutil.copytree(dataset, tmp_path / "disk" / "other name")
    shutil.copytree(tiny_config.vlm_model_id, tmp_path / "vlm")
    a = identity(dataset, tiny_config, streaming=streaming)
    b = identity(tmp_path / "disk" / "other name", tiny_config, streaming=streaming, VLM_MODEL=str(tmp_path / "vlm"))
    assert a == b and a == json.loads(json.dumps(a)) and differences(a, b) == ""


def changed(number: int, **cells: Any) -> list[dict[str, Any]]:
    return [{**row, **cells} if n == number else row for n, row in enumerate(rows(20))]


@pytest.mark.parametrize("column", ["conversations", "metadata", "task", "source"])
def test_a_text_in_any_row_counts(column: str, dataset: Path, tiny_config: ModelConfig, tmp_path: Path) -> None:
    for number in (3, 19):
        write_dataset(tmp_path / f"other{number}", {"train": changed(number, **{column: "else"})})
        said = differences(identity(dataset, tiny_config), identity(tmp_path / f"other{number}", tiny_config))
        assert said.startswith("DATASET contents was ")


@pytest.mark.parametrize("column", ["conversations", "metadata", "task", "source"])
def test_a_text_in_any_row_of_a_stream_counts(
    column: str, dataset: Path, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    write_dataset(tmp_path / "other", {"train": changed(19, **{column: "else"})})
    a, b = (identity(folder, tiny_config, streaming=True) for folder in (dataset, tmp_path / "other"))
    assert run_differences(a, b).startswith("DATASET texts was ")
    first = [
        identity(folder, tiny_config, streaming=True, MAX_SAMPLES="19") for folder in (dataset, tmp_path / "other")
    ]
    assert run_differences(*first) == ""  # the changed row is not one of them


def test_lines_and_files_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = {"task": "t", "source": "s", "image": "a.png", "conversations": "[]", "metadata": "{}"}
    lines = [json.dumps({**cells, "source": str(number)}) for number in range(30)]
    keys = []
    for changed_line in (lines[29], lines[29].replace('"29"', '"28"')):
        (tmp_path / "train.jsonl").write_text("\n".join([*lines[:29], changed_line]))
        keys.append(texts_key(open_stream(str(tmp_path), "train")))
    assert keys[0] != keys[1]

    class Hub:
        def info(self, name: str) -> dict[str, Any]:
            if name.endswith("gone"):
                raise OSError("not reachable")
            return {"blob_id": "1", "lfs": None} if name.endswith("small") else {"blob_id": "2", "lfs": {"sha256": "3"}}

    monkeypatch.setattr(fingerprint, "HfFileSystem", Hub)
    found = [
        texts_key(StreamingSampler(StreamedRows(None, None, "d", files=files), 9))  # type: ignore[arg-type]
        for files in (("hf://a/small",), ("hf://b/small",), ("hf://a/large",), ("hf://a/gone",), ())
    ]
    assert found[0] == found[1] != found[2] and None not in found[:3] and found[3:] == [None, None]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("by_path", [False, True])
def test_other_images_count(
    dataset: Path, tiny_config: ModelConfig, tmp_path: Path, *, streaming: bool, by_path: bool
) -> None:
    flipped = [{**row, "image": row["image"].rotate(180)} for row in rows(20)]
    if by_path:
        folders = []
        for number, made in enumerate((rows(20), flipped)):
            folder = tmp_path / f"by path {number}"
            (folder / "data").mkdir(parents=True)
            for n, row in enumerate(made):
                row["image"].save(folder / f"{n}.png")
                row["image"] = f"{n}.png"
            columns = dict.fromkeys(("task", "source", "conversations", "metadata", "image"), Value("string"))
            data = Dataset.from_list(made, features=Features(columns))
            data.to_parquet(folder / "data" / "train-00000-of-00001.parquet")
            folders.append(folder)
        first, second = folders
    else:
        first, second = dataset, tmp_path / "flipped"
        write_dataset(second, {"train": flipped})
    a, b = (identity(folder, tiny_config, streaming=streaming) for folder in (first, second))
    assert a == identity(first, tiny_config, streaming=streaming)
    assert differences(a, b).startswith("DATASET contents was ")


def test_other_weights_count(dataset: Path, tiny_config: ModelConfig, tmp_path: Path) -> None:
    shutil.copytree(tiny_config.sam_model_id, tmp_path / "sam")
    weights = tmp_path / "sam" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1000] ^= 1
    weights.write_bytes(content)
    a, b = identity(dataset, tiny_config), identity(dataset, tiny_config, SAM_MODEL=str(tmp_path / "sam"))
    assert differences(a, b).startswith("model_config.json sam_model_id was 'folder ")


def test_a_hub_id_counts_by_name_and_a_damaged_row_is_no_obstacle(tiny_config: ModelConfig, tmp_path: Path) -> None:
    made = TrainConfig.from_env({"DATASET": "somebody/scenes"}).resolve(1)
    order = IndexedSampler([{"task": "t"}, None])
    found = identify(made, made.new_model_config(), order)
    assert found["DATASET"] == "somebody/scenes" and found["DATASET rows"] == 2
    assert found["model_config.json vlm_model_id"] == "Qwen/Qwen3.5-0.8B"


def test_a_stream_is_not_read_for_it(tiny_config: ModelConfig, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = open_stream(str(dataset), "train", 0, 1000, 0)
    read = []
    original = type(order.source).__iter__  # type: ignore[attr-defined]

    def counting(self: Any) -> Any:
        for row in original(self):
            read.append(1)
            yield row

    monkeypatch.setattr(type(order.source), "__iter__", counting)  # type: ignore[attr-defined]
    made = TrainConfig.from_env({"STREAMING": "1", "DATASET": str(dataset)}).resolve(1)
    identify(made, made.new_model_config(), order)
    assert len(read) == 8


def test_images_column_kept(dataset: Path) -> None:
    """What is hashed is what is trained on: the rows still come with their images afterwards."""
    source = load_rows(str(dataset), "train")
    assert isinstance(source, Dataset) and isinstance(source.features["image"], Image)
    assert source[0]["image"]["bytes"]


def test_runs_without_an_entry_for_places_had_none(dataset: Path, tiny_config: ModelConfig) -> None:
    name = "model_config.json instance_places"
    now = {**identity(dataset, tiny_config), name: "none"}
    before = {key: value for key, value in now.items() if key != name}
    assert run_differences(before, now) == ""
    assert run_differences(before, {**now, name: "box"}).startswith(f"{name} was 'none', is 'box'")
