"""Kill a training run repeatedly; it must end bit-identical to an uninterrupted one.

The run is the demo model on a few scenes, with a checkpoint after every step. Each start is a fork of this process,
which has everything imported already, so that a kill costs two seconds instead of ten.
"""

import json
import math
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from satlisa.data.synthetic.rows import demo_rows
from satlisa.runtime.atomic_files import PARTIAL
from satlisa.training import train as training
from satlisa.training.fault_tolerance.checkpoint_files import CHECKPOINT_FOLDER, list_checkpoints, read_checkpoint
from satlisa.training.log import LOG_FILE, SUMMARY_FILE
from satlisa.training.settings import TrainConfig

_TIMES = ("samples_per_second", "peak_memory")  # may differ between identical runs
_PATIENCE = 120.0  # seconds for a start to reach its kill point, or to end


def run_settings(folder: Path, **more: str) -> TrainConfig:
    """A short run of the demo model: two epochs (or EPOCHS) of eight steps of two rows."""
    environ = {
        "PRESET": "demo", "OUTPUT_DIR": str(folder), "DEVICE": "cpu", "BATCH_SIZE": "2", "GRAD_ACCUM": "1",
        "MAX_SAMPLES": "16", "VAL_SAMPLES": "4", "EPOCHS": "2", "CHECKPOINT_EVERY": "1",
    }  # fmt: skip
    return TrainConfig.from_env({**environ, **more})


def start(settings: TrainConfig, log: Path) -> int:
    """Train in a child process; returns its process id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with open(log, "ab") as file:
            os.dup2(file.fileno(), 2)
            os.dup2(file.fileno(), 1)
        training.train(settings)
        code = 0
    finally:
        os._exit(code)


def ended(child: int, seconds: float = 0.0) -> int | None:
    """The exit status of a child, or None while it runs; waits up to `seconds`."""
    until = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        if time.monotonic() >= until:
            return None
        time.sleep(0.002)


def kill_when(child: int, folder: Path, rng: random.Random) -> str:
    """Kill a child at a random moment, half of the time during a checkpoint; returns how it ended."""
    writing = rng.random() < 0.5
    steps = rng.randint(0, 2)  # before the kill; 0: while it loads
    delay = rng.uniform(0.0, 0.4 if steps else 3.0)
    known = len((folder / LOG_FILE).read_text().splitlines()) if (folder / LOG_FILE).exists() else 0
    left = half_written(folder)  # by an earlier start
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        if (status := ended(child)) is not None:
            return "finished" if status == 0 else f"failed with status {status}"
        log = folder / LOG_FILE
        begun = steps == 0 or (log.exists() and len(log.read_text().splitlines()) >= known + steps)
        if begun and not writing:
            time.sleep(delay)
            break
        if begun and half_written(folder) - left:
            break
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):  # it ended before the kill
        return "finished" if status == 0 else f"failed with status {status}"
    return "killed in writing" if half_written(folder) - left else "killed"


def half_written(folder: Path) -> set[str]:
    """Names of incomplete checkpoints."""
    return {path.name for path in (folder / CHECKPOINT_FOLDER).glob("step-*" + PARTIAL)}


def differences(one: Path, other: Path) -> list[str]:
    """Differences of two finished run folders: weights, optimizer, random states, log, validation."""
    a, b = weights_of(one), weights_of(other)
    found = [name for name in a if not torch.equal(a[name], b[name])]
    checkpoints = [read_checkpoint(list_checkpoints(folder)[-1]) for folder in (one, other)]
    for part in ("trained", "optimizer", "random"):
        a, b = (getattr(checkpoint, part) for checkpoint in checkpoints)
        found += [f"checkpoint {part} {key}" for key in {*a, *b} if key not in a or not torch.equal(a[key], b[key])]
    logs = [steps_of(folder) for folder in (one, other)]
    if logs[0] != logs[1]:
        found.append(f"{LOG_FILE}: steps {[s['step'] for s in logs[0]]} and {[s['step'] for s in logs[1]]}")
    summaries = [json.loads((folder / SUMMARY_FILE).read_text()) for folder in (one, other)]
    for key in ("steps", "validation", "skipped_rows", "instances_left_out", "dropped_steps"):
        if summaries[0][key] != summaries[1][key]:
            found.append(f"{SUMMARY_FILE} {key}")
    return found


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """All trained tensors of a model directory."""
    found: dict[str, torch.Tensor] = {}
    for name in ("seg_projector.pt", "sam_mask_decoder.pt"):
        found |= {f"{name} {key}": value for key, value in torch.load(folder / name, weights_only=True).items()}
    for name in ("vlm_lora/adapter_model.safetensors", "seg_token.safetensors"):
        found |= {f"{name} {key}": value for key, value in load_file(folder / name).items()}
    return found


def steps_of(folder: Path) -> list[dict[str, Any]]:
    """The log without times."""
    lines = (folder / LOG_FILE).read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in _TIMES} for line in lines]


def main(folder: Path, kills: int, seed: int) -> tuple[int, int, list[str]]:
    """Kill a run `kills` times; returns how many kills were tried and survived, and what was lost.

    The number of epochs follows from the kills, three per epoch.
    """
    epochs = str(max(2, -(-kills // 3)))
    torch.set_num_threads(1)  # a fork does not inherit a thread pool
    rng = random.Random(seed)
    complete, killed = folder / "complete", folder / "killed"
    log = folder / "output.txt"
    for split in ("train", "validation"):
        demo_rows(split)  # planned before the forks, which then find the plans
    folder.mkdir(parents=True, exist_ok=True)
    status = ended(start(run_settings(complete, EPOCHS=epochs), log), math.inf)
    if status != 0:
        return 1, 0, [f"the uninterrupted run failed, see {log}"]
    lost: list[str] = []
    done, counts = 0, Counter[str]()
    while done < kills:
        how = kill_when(start(run_settings(killed, EPOCHS=epochs), log), killed, rng)
        counts[how] += 1
        if how.startswith("failed"):
            return done, done, [f"start {done + 1} {how}, see {log}"]
        for place in list_checkpoints(killed):
            read_checkpoint(place)  # raises unless it is complete
        if how == "finished":
            lost += differences(complete, killed)
            print(f"  a run finished after {done} kills; the next one starts", flush=True)
            os.rename(killed, folder / f"killed-{done}")
        else:
            done += 1
    status = ended(start(run_settings(killed, EPOCHS=epochs), log), math.inf)
    lost += differences(complete, killed) if status == 0 else [f"the last start failed with status {status}, see {log}"]
    print("  " + ", ".join(f"{name}: {count}" for name, count in sorted(counts.items())))
    return kills, 0 if lost else kills, lost
