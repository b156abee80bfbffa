"""A short run with dropout, its dataset, and how it goes when nobody interrupts it."""

import json
from pathlib import Path
from typing import Any

import pytest

from satlisa.config import ModelConfig
from satlisa.training import train as run_module
from satlisa.training import trainer
from satlisa.training.settings import TrainConfig
from tests.helpers.runs import rows, settings, write_dataset


@pytest.fixture(scope="session")
def resume_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    write_dataset(folder, {"train": rows(24), "validation": rows(3)})
    return folder


def short(config: ModelConfig, dataset: Path, output: Path, **more: str) -> TrainConfig:
    """Six steps of four rows an epoch, two epochs, and dropout, so that the random generators matter."""
    return settings(config, dataset, output, **{"GRAD_ACCUM": "1", "CHECKPOINT_EVERY": "2", **more})


@pytest.fixture(scope="session")
def dropping(tiny_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a model_config.json with dropout in LoRA."""
    path = tmp_path_factory.mktemp("config") / "model_config.json"
    path.write_text(json.dumps({**tiny_config.to_dict(), "lora_dropout": 0.3}))
    return str(path)


@pytest.fixture(scope="session")
def whole(tiny_config: ModelConfig, resume_data: Path, dropping: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    return run_module.train(short(tiny_config, resume_data, folder, MODEL_CONFIG=dropping, KEEP_CHECKPOINTS="99"))


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, action: Any) -> None:
    """Do something when the losses of a step are computed, before the step is taken."""
    original = trainer.run_batches

    def run_batches(run: Any, *arguments: Any) -> Any:
        if run.progress.step == number - 1:
            action()
        return original(run, *arguments)

    monkeypatch.setattr(trainer, "run_batches", run_batches)


@pytest.fixture(scope="session")
def dataset_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local folder in the hub's layout."""
    folder = tmp_path_factory.mktemp("dataset")
    write_dataset(folder, {"train": rows(24), "validation": rows(6)})
    return folder
