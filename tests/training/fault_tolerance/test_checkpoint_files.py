"""Checkpoints on disk: never half written, never trusted."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from satlisa.training import train as run_module
from satlisa.training.fault_tolerance import checkpoint_files
from satlisa.training.fault_tolerance.checkpoint_files import list_checkpoints, read_checkpoint, write_checkpoint
from tests.helpers.resume_fixtures import short
from tests.helpers.run_folders import checkpoint, make_run, place_of


def test_a_checkpoint_is_never_gone_while_it_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(tmp_path / "run", 4)

    def unwanted(*_: Any) -> None:
        raise AssertionError("written")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_files, "atomic_replace", unwanted)
        write_checkpoint(checkpoint(4), folder, keep=1)
    (place_of(folder, 4) / "trained.safetensors").write_bytes(b"damaged")
    write_checkpoint(checkpoint(4), folder, keep=1)
    assert read_checkpoint(place_of(folder, 4)).state["step"] == 4


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


@pytest.mark.integration
@pytest.mark.parametrize("name", ["trained.safetensors", "optimizer.safetensors", "random.safetensors", "state.json"])
def test_a_planted_checkpoint_runs_no_code(
    name: str, tiny_config: ModelConfig, resume_data: Path, dropping: str, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    place = list_checkpoints(folder)[-1]
    (place / name).write_bytes(pickle.dumps(Bomb(tmp_path / "boom")))
    with pytest.raises(SatlisaError):
        read_checkpoint(place)
    made = short(tiny_config, resume_data, tmp_path / "new", MODEL_CONFIG=dropping, RESUME=str(place))
    with pytest.raises(SatlisaError):
        run_module.train(made)
    assert not (tmp_path / "boom").exists()
