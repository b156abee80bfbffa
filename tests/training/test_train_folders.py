"""`train.py` in folders that cannot hold a run, or not as other disks do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from satlisa.config import ModelConfig
from satlisa.training.fault_tolerance.checkpoint_files import list_checkpoints
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.integration


def start(config: ModelConfig, dataset: Path, folder: Path, **more: str) -> "subprocess.CompletedProcess[str]":
    environ = {
        "DATASET": str(dataset), "OUTPUT_DIR": str(folder), "VLM_MODEL": config.vlm_model_id,
        "SAM_MODEL": config.sam_model_id, "DEVICE": "cpu", "BATCH_SIZE": "4", "GRAD_ACCUM": "1", "EPOCHS": "1",
        "MAX_SKIP": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py")], env={**os.environ, **environ, **more}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip


POOR_DISK = """
import errno, os
from pathlib import Path

root, poor = Path(os.environ["POOR_ROOT"]), os.environ["POOR"].split()
fsync, chmod, rename, replace = os.fsync, os.chmod, os.rename, os.replace

def is_here(path):
    return Path(os.path.abspath(path)).is_relative_to(root)

def poor_fsync(descriptor):
    here = os.readlink(f"/proc/self/fd/{descriptor}")
    if "fsync_folder" in poor and os.path.isdir(here) and is_here(here):
        raise OSError(errno.EINVAL, "Invalid argument")
    return fsync(descriptor)

def poor_chmod(path, *arguments, **more):
    if "chmod" in poor and not isinstance(path, int) and is_here(path):
        raise PermissionError(errno.EPERM, "Operation not permitted", path)
    return chmod(path, *arguments, **more)

def poor_rename(move):
    def renamed(source, *arguments, **more):
        if "rename_folder" in poor and os.path.isdir(source) and is_here(source):
            raise OSError(errno.ENOSYS, "Function not implemented", source)
        return move(source, *arguments, **more)
    return renamed

os.fsync, os.chmod, os.rename, os.replace = poor_fsync, poor_chmod, poor_rename(rename), poor_rename(replace)
"""


@pytest.mark.parametrize("poor", ["chmod fsync_folder", "rename_folder"])
def test_disks_that_cannot_do_everything(
    poor: str, tiny_config: ModelConfig, resume_data: Path, tmp_path: Path
) -> None:
    """What is cosmetic fails without a word; what is needed is named at the start, before a model is loaded."""
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "sitecustomize.py").write_text(POOR_DISK)
    folder = tmp_path / "run"
    folder.mkdir()
    more = {"PYTHONPATH": str(tmp_path / "python"), "POOR": poor, "POOR_ROOT": str(folder), "MAX_STEPS": "1"}
    done = start(tiny_config, resume_data, folder, **more)
    if poor == "rename_folder":
        *_, last = done.stderr.splitlines()
        assert done.returncode == 2 and "Traceback" not in done.stderr and "make room" not in last
        assert last.startswith(f"train.py: OUTPUT_DIR: in {folder} the disk cannot rename a folder (")
        assert not list(folder.iterdir())
    else:
        assert done.returncode == 0, done.stderr[-2000:]
        assert (folder / "seg_projector.pt").exists() and len(list_checkpoints(folder)) == 1


def test_a_root_is_no_run_folder(tiny_config: ModelConfig, resume_data: Path) -> None:
    done = start(tiny_config, resume_data, Path("/"))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == "train.py: OUTPUT_DIR: / is the root of a disk; name a folder below it"
