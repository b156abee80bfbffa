"""The rows of a run with several datasets: each is reported by name, and the run resumes."""

import json
import logging
import shutil
from pathlib import Path

import pytest

from satlisa.config import ModelConfig
from satlisa.data.dataset import load_rows
from satlisa.errors import SatlisaError
from satlisa.training import train as run_module
from satlisa.training.settings import TrainConfig
from satlisa.training.splits import open_data
from tests.helpers.runs import log_of, rows, settings, write_dataset


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("mixture")
    whole = [row for row in rows(20) if row["conversations"] != "{broken"]
    halves = [[[0.1, 0.1], [0.6, 0.1], [0.6, 0.7]]]
    fractions = [{**row, "metadata": json.dumps({"polygons": halves})} for row in whole if "segm" in row["task"]]
    write_dataset(folder / "a", {"train": whole[:12], "validation": whole[:4]})
    write_dataset(folder / "b", {"train": fractions})
    return f"{folder / 'a'},{folder / 'b'}:0.25"


def test_each_dataset_is_reported_by_its_name(
    tiny_config: ModelConfig, mixture: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    data = open_data(settings(tiny_config, Path(mixture), tmp_path))
    assert len(data.train) == 16 and len(data.validation) == 4
    text, (one, other) = caplog.text, (name.split(":")[0] for name in mixture.split(","))
    assert f"an epoch has 12 of {one} and 4 of {other}; {one}: rows 0 to 11" in text
    for name in (one, other):
        assert f"train split of {name}: of " in text
    assert f"train split of {one}: 12 rows: " in text and "validation split: 4 rows: " in text
    assert f"dataset {other}: no split 'validation'" in text
    fractions = data.fractions()
    assert callable(fractions) and [fractions(index) for index in (0, 11, 12)] == [False, False, True]


def test_validation_rows_have_the_unit_of_their_own_dataset(
    tiny_config: ModelConfig, mixture: str, tmp_path: Path
) -> None:
    """Also where some of the datasets have no validation split, so that row numbers are not those of training."""
    one, other = (name.split(":")[0] for name in mixture.split(","))
    held = [list(load_rows(name, "train")) for name in (one, other)]
    write_dataset(tmp_path / "a", {"train": held[0]})
    write_dataset(tmp_path / "b", {"train": held[1], "validation": held[1]})
    data = open_data(settings(tiny_config, Path(f"{tmp_path / 'a'},{tmp_path / 'b'}:0.25"), tmp_path / "run"))
    fractions = data.fractions(data.validation)
    assert callable(fractions) and all(fractions(index) for index in range(len(data.validation)))


def test_a_mixture_cannot_be_streamed(mixture: str) -> None:
    with pytest.raises(SatlisaError, match="STREAMING: several datasets can be mixed, or one can be streamed"):
        TrainConfig.from_env({"DATASET": mixture, "STREAMING": "1"})


@pytest.mark.integration
def test_a_run_on_a_mixture_resumes_and_refuses_other_shares(
    tiny_config: ModelConfig, mixture: str, tmp_path: Path
) -> None:
    whole = run_module.train(settings(tiny_config, Path(mixture), tmp_path / "a"))
    assert len(log_of(whole)) == 4  # 16 rows / 8, twice
    shutil.copytree(whole, tmp_path / "b")
    (tmp_path / "b" / "train_summary.json").unlink()
    shutil.rmtree(max((tmp_path / "b" / "checkpoints").glob("step-*")))
    resumed = run_module.train(settings(tiny_config, Path(mixture), tmp_path / "b"))
    assert [entry["loss"] for entry in log_of(resumed)] == [entry["loss"] for entry in log_of(whole)]
    with pytest.raises(SatlisaError, match=r"DATASET was 'a folder,a folder:0.25', is 'a folder,a folder:0.5'"):
        run_module.train(settings(tiny_config, Path(mixture.replace("0.25", "0.5")), tmp_path / "b"))
