"""FSDP on two CPU processes trains what one process does, and its checkpoints fit any number of processes.

`accelerate` shards on accelerators only. Run as a script this file is `train.py` on CPU processes that are counted as
accelerators, so that accelerate's own FSDP does the sharding.
"""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType

from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from satlisa.runtime.sharding import check_sharding
from satlisa.training.fault_tolerance.checkpoint_files import list_checkpoints, read_checkpoint
from stress.kills import weights_of
from tests.helpers.fork_server import launch
from tests.helpers.paths import ROOT
from tests.helpers.runs import log_of, rows, write_dataset

pytestmark = pytest.mark.integration

FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "Qwen3_5DecoderLayer",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}


@pytest.fixture(scope="module")
def environ(tiny_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """19 rows of which one is broken, and five to validate: two processes have unequal numbers of batches."""
    folder = tmp_path_factory.mktemp("sharding") / "data"
    write_dataset(folder, {"train": rows(19), "validation": rows(5)})
    return {
        "DATASET": str(folder), "VLM_MODEL": tiny_config.vlm_model_id, "SAM_MODEL": tiny_config.sam_model_id,
        "DEVICE": "cpu", "EPOCHS": "2", "BATCH_SIZE": "1", "CHECKPOINT_EVERY": "2",
        "KEEP_CHECKPOINTS": "99", "MAX_SKIP": "1", "LEARNING_RATE": "1e-3", "PROJECTOR_LR_FACTOR": "2",
        "CACHE_MEMORY_GB": "1",
    }  # fmt: skip


def train(environ: dict[str, str], folder: Path, processes: int, **more: str) -> str:
    """A run in processes of its own, sharded where there are two of them; returns what it said."""
    script = __file__ if processes > 1 else str(ROOT / "train.py")
    sharded = FSDP if processes > 1 else {}
    given = {**environ, **sharded, "GRAD_ACCUM": str(4 // processes), "OUTPUT_DIR": str(folder), **more}
    done = launch(processes, script, environ=given, timeout=300)
    assert done.returncode == 0, done.stderr[-9000:]
    return done.stderr


def assert_same_run(one: Path, other: Path) -> None:
    for key in ("step", "loss", "loss_text", "loss_bce", "loss_dice", "grad_norm", "lr"):
        a, b = ([record[key] for record in log_of(folder)] for folder in (one, other))
        np.testing.assert_allclose(b, a, rtol=1e-5, err_msg=key)
    a, b = (json.loads((folder / "train_summary.json").read_text()) for folder in (one, other))
    assert a["skipped_rows"] == b["skipped_rows"] and a["parameters"] == b["parameters"]
    for first, second in zip(a["validation"], b["validation"], strict=True):
        assert second == pytest.approx(first, rel=1e-4)
    weights = weights_of(one)
    assert weights.keys() == weights_of(other).keys()
    for name, tensor in weights_of(other).items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-3, atol=1e-4, msg=name)


def test_shards_train_like_one_process_and_go_on_as_one(environ: dict[str, str], tmp_path: Path) -> None:
    """A sharded run; from its middle on, one process; from the middle of that, shards again."""
    whole, sharded = tmp_path / "whole", tmp_path / "sharded"
    train(environ, whole, 1)
    said = train(environ, sharded, 2, GRAD_CHECKPOINT="1")
    assert "2 processes" not in said and "CACHE_MEMORY_GB is not used" in said
    assert_same_run(whole, sharded)
    places = list_checkpoints(sharded)
    assert [place.name for place in places] == [place.name for place in list_checkpoints(whole)]
    for place in places:  # whole tensors, as one process has them
        a, b = (read_checkpoint(folder / "checkpoints" / place.name) for folder in (whole, sharded))
        assert {k: v.shape for k, v in a.optimizer.items()} == {k: v.shape for k, v in b.optimizer.items()}
    for source, processes in ((sharded, 1), (whole, 2)):
        again = tmp_path / f"again-{processes}"
        shutil.copytree(source, again)
        (again / "train_summary.json").unlink()
        for place in list_checkpoints(again)[2:]:
            shutil.rmtree(place)
        said = train(environ, again, processes, GRAD_ACCUM=str(4 // (3 - processes)))  # a step as large as before
        assert f"{3 - processes} processes before, {processes} now" in said
        assert_same_run(whole, again)


def accelerator(kind: DistributedType, **plugin: Any) -> Any:
    values = {"fsdp_version": 2, "cpu_ram_efficient_loading": False, **plugin}
    return SimpleNamespace(distributed_type=kind, state=SimpleNamespace(fsdp_plugin=SimpleNamespace(**values)))


@pytest.mark.parametrize(
    ("kind", "plugin", "dtype", "said"),
    [
        (DistributedType.DEEPSPEED, {}, torch.float32, "DEEPSPEED is not supported; choose FSDP 2"),
        (DistributedType.FSDP, {"fsdp_version": 1}, torch.float32, "expected fsdp_version 2, found 1"),
        (DistributedType.FSDP, {"cpu_ram_efficient_loading": True}, torch.float32, "switch it off"),
        (DistributedType.FSDP, {}, torch.float16, "set bf16 or fp32"),
    ],
)
def test_what_cannot_be_sharded(kind: DistributedType, plugin: Any, dtype: torch.dtype, said: str) -> None:
    with pytest.raises(SatlisaError, match=said):
        check_sharding(accelerator(kind, **plugin), dtype)
    check_sharding(accelerator(DistributedType.MULTI_GPU), torch.float16)
    check_sharding(accelerator(DistributedType.FSDP), torch.bfloat16)


if __name__ == "__main__":
    from satlisa.cli.train import main

    PartialState(cpu=True)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    raise SystemExit(main())
