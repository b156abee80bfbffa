"""Several processes, or one that was killed, evaluate what one process does that runs through."""

import functools
import signal
import sys
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
from tests.helpers.evaluation_runs import (
    BROKEN_ROW,
    NUM_ROWS,
    OPTIONS,
    PATIENCE,
    comparable,
    load_script,
    made_up_rows,
    make_folder,
    run_command,
    start,
    wait_for_windows,
)
from tests.helpers.fork_server import launch
from tests.helpers.model_fixtures import make_model
from tests.helpers.paths import ROOT
from tests.helpers.runs import LAUNCH

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def command_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command reports when it runs through in one process."""
    folder = tmp_path_factory.mktemp("command")
    run_command(folder)
    return folder


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
    arguments = [*options, str(tmp_path / "two"), "--resume"]
    done = launch(2, str(ROOT / "infer_dataset.py"), {}, PATIENCE, arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.replace(str(tmp_path / "two"), "") == alone and alone.count("Report: ") == 1
    assert done.stderr.count("resuming after 8 of 28 samples") == 1
    assert "12/12" in done.stderr and "20/20" not in done.stderr  # windows 1 and 3; the other process has window 2
    assert comparable(tmp_path / "one") == comparable(tmp_path / "two")
    samples = read_results(tmp_path / "two/results.json")["samples"]
    assert len({entry["segs"] for entry in samples}) > 1 and any(entry["iou"] for entry in samples)
    assert sorted(entry["index"] for entry in samples) == list(range(NUM_ROWS))
    assert [entry["index"] for entry in samples if entry["error"]] == [BROKEN_ROW]
