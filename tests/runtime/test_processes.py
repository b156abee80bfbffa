"""Several processes, or one that was killed, evaluate what one process does that runs through.

Run as a script this file is `infer_dataset.py` with a made-up model, for tests that need real processes.
"""

import functools
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import satlisa.data.dataset
import satlisa.evaluation.evaluate
import satlisa.pretrained.model_directory
from satlisa.config import ModelConfig
from satlisa.evaluation.evaluate import evaluate
from satlisa.evaluation.report import read_results
from satlisa.inference.generation import Answer, answer
from satlisa.pretrained.model_directory import save_model
from satlisa.runtime.processes import ProcessGroup
from tests.evaluation.test_evaluate import MODEL
from tests.evaluation.test_resume import BROKEN_ROW, NUM_ROWS, answering, comparable, made_up_rows
from tests.helpers.model_fixtures import make_model
from tests.helpers.runs import LAUNCH, ROOT

OPTIONS = ["--samples_per_task", "0", "--batch_size", "2", "--report_samples", "3"]  # windows of 8
PATIENCE = 300  # seconds, on a busy machine; processes that hang wait for days


def load_script() -> Any:
    spec = importlib.util.spec_from_file_location("infer_dataset", ROOT / "infer_dataset.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def put_stand_ins(patch: Callable[[Any, str, Any], None], answer_fn: Any, load: Callable[[], None]) -> None:
    """Let `infer_dataset.py` find a made-up model and dataset."""

    def load_model(*arguments: Any) -> Any:
        load()
        return MODEL

    patch(satlisa.pretrained.model_directory, "load_model", load_model)
    patch(satlisa.pretrained.model_directory, "find_model_dir", Path)
    patch(satlisa.data.dataset, "load_rows", lambda *arguments: made_up_rows())
    patch(satlisa.evaluation.evaluate, "evaluate", functools.partial(evaluate, answer_fn=answer_fn))


def run_command(folder: Path, *options: str) -> None:
    """The command with stand-ins, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        put_stand_ins(patch.setattr, answering(), lambda: None)
        patch.setattr(sys, "argv", ["infer_dataset.py", *OPTIONS, "--output_dir", str(folder), *options])
        assert load_script().main() == 0


@pytest.fixture(scope="module")
def command_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command reports when it runs through in one process."""
    folder = tmp_path_factory.mktemp("command")
    run_command(folder)
    return folder


@pytest.mark.parametrize(
    ("group", "asked", "given"),
    [
        (ProcessGroup(1, 1, 2), None, "cuda:1"),
        (ProcessGroup(3, 1, 4), "cuda", "cuda:1"),
        (ProcessGroup(5, 5, 8), None, "cuda:1"),  # more processes than GPUs
        (ProcessGroup(1, 1, 2), "cuda:0", "cuda:0"),
        (ProcessGroup(1, 1, 2), "cpu", "cpu"),
        (ProcessGroup(), None, None),
    ],
)
def test_each_process_has_a_gpu(group: ProcessGroup, asked: str | None, given: str | None, monkeypatch: Any) -> None:
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert group.device(asked) == given
    assert current == ([1] if given == "cuda:1" else [])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert group.device(asked) == asked


def start(launcher: Sequence[str], folder: Path, *options: str, fail: str = " -1") -> subprocess.Popen[str]:
    """This file as a command; its stdout and stderr together."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.Popen(
        [*launcher, __file__, *OPTIONS, "--output_dir", str(folder), *options],
        env={**os.environ, "PYTHONPATH": path, "FAIL": fail, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_windows(folder: Path, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(list((folder / ".partial/windows").glob("*.json"))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_killed_and_resumed(command_report: Path, tmp_path: Path) -> None:
    killed = start([sys.executable], tmp_path)
    wait_for_windows(tmp_path, 1)
    killed.kill()
    killed.communicate(timeout=PATIENCE)
    assert killed.returncode == -signal.SIGKILL and not (tmp_path / "results.json").exists()
    run_command(tmp_path, "--resume")
    assert comparable(tmp_path) == comparable(command_report)


def test_a_process_that_is_killed_stops_the_others(command_report: Path, tmp_path: Path) -> None:
    """Process 1 dies in its second window; one process alone goes on."""
    pair = start([*LAUNCH, "2"], tmp_path, fail="kill 1")
    said, _ = pair.communicate(timeout=PATIENCE)
    assert pair.returncode != 0 and "run the same command with --resume" in said
    assert not (tmp_path / "results.json").exists()
    done = sorted(path.name for path in (tmp_path / ".partial/windows").iterdir())
    assert "00001.json" in done and "00003.json" not in done
    run_command(tmp_path, "--resume")
    assert comparable(tmp_path) == comparable(command_report)


def test_a_process_that_fails_early_stops_the_others(tmp_path: Path) -> None:
    """The main process fails while the other waits for it; nothing hangs and nothing is left."""
    pair = start([*LAUNCH, "2"], tmp_path / "out", fail="load 0")
    said, _ = pair.communicate(timeout=PATIENCE)
    assert pair.returncode != 0 and "out of memory, let us say" in said
    assert not (tmp_path / "out").exists()


def test_two_processes_and_a_real_model(tiny_config: ModelConfig, tmp_path: Path, capsys: Any) -> None:
    """`infer_dataset.py` itself: two processes resume what one has begun, each sample once, one report."""
    model = make_model(tiny_config)
    model.seg_row.data.mul_(-15)  # it draws in some answers
    save_model(model, tmp_path / "model")
    made_up_rows().to_parquet(make_folder(tmp_path / "dataset" / "data") / "validation-00000-of-00001.parquet")
    options = ["--model_dir", str(tmp_path / "model"), "--dataset", str(tmp_path / "dataset"), "--device", "cpu"]
    options += [*OPTIONS, "--max_new_tokens", "6", "--output_dir"]
    calls = []

    def stopping(*arguments: Any, **keywords: Any) -> list[Answer]:
        calls.append(1)
        if len(calls) == 6:
            signal.raise_signal(signal.SIGTERM)
        return answer(*arguments, **keywords)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as many as each of two processes has: sums of floats depend on it
    for folder, answer_fn, code in (("one", answer, 0), ("two", stopping, 143)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(satlisa.evaluation.evaluate, "evaluate", functools.partial(evaluate, answer_fn=answer_fn))
            patch.setattr(sys, "argv", ["infer_dataset.py", *options, str(tmp_path / folder)])
            assert load_script().main() == code
    torch.set_num_threads(threads)
    alone = capsys.readouterr().out.replace(str(tmp_path / "one"), "")
    done = subprocess.run(
        [*LAUNCH, "2", str(ROOT / "infer_dataset.py"), *options, str(tmp_path / "two"), "--resume"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.replace(str(tmp_path / "two"), "") == alone and alone.count("Report: ") == 1
    assert done.stderr.count("resuming after 8 of 28 samples") == 1
    assert "12/12" in done.stderr and "20/20" not in done.stderr  # windows 1 and 3; the other process has window 2
    assert comparable(tmp_path / "one") == comparable(tmp_path / "two")
    samples = read_results(tmp_path / "two/results.json")["samples"]
    assert len({entry["segs"] for entry in samples}) > 1 and any(entry["iou"] for entry in samples)
    assert sorted(entry["index"] for entry in samples) == list(range(NUM_ROWS))
    assert [entry["index"] for entry in samples if entry["error"]] == [BROKEN_ROW]


def make_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def worker() -> None:
    """`infer_dataset.py` with stand-ins: slow answers, and a failure where the environment asks for one.

    FAIL="load 1" raises while process 1 loads its model, FAIL="kill 1" kills process 1 in its second window.
    """
    what, rank = os.environ.get("FAIL", " -1").split(" ")
    is_meant = os.environ.get("RANK", "0") == rank

    def slow(call: int) -> None:
        time.sleep(0.1)
        if what == "kill" and is_meant and call == 6:
            os.kill(os.getpid(), signal.SIGKILL)

    def load() -> None:
        if what == "load" and is_meant:
            raise RuntimeError("out of memory, let us say")

    put_stand_ins(setattr, answering(slow), load)
    sys.exit(load_script().main())


if __name__ == "__main__":
    worker()
