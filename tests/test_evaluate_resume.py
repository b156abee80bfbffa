"""An evaluation that was interrupted, or that several processes share, reports what one that ran through reports.

Run as a script this file is `infer_dataset.py` with a made-up model, for tests that need real processes.
"""

import functools
import importlib.util
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from model_fixtures import make_model, picture
from test_evaluate import HEIGHT, LEFT_HALF, MODEL, WIDTH, columns, reply, row

import satlisa.checkpoint
import satlisa.dataset
import satlisa.evaluate
from satlisa.checkpoint import save_model
from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from satlisa.evaluate import EvalSettings, evaluate
from satlisa.generation import Answer, answer
from satlisa.journal import Journal
from satlisa.processes import Team
from satlisa.report import read_results, write_report

ROOT = Path(__file__).parents[1]
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
SETTINGS = EvalSettings(samples_per_task=0, batch_size=2, report_samples=3)  # windows of 8
OPTIONS = ["--samples_per_task", "0", "--batch_size", "2", "--report_samples", "3"]
NUM_ROWS, NUM_CALLS = 28, 16  # 14 batches, one of which fails and is asked again one by one
PATIENCE = 300  # seconds, on a busy machine; processes that hang wait for days
BROKEN_ROW, UNANSWERABLE = 6, "Question 19?"


def made_up_rows() -> Any:
    """Prompts of different lengths in two tasks; a row that cannot be read and one that cannot be answered."""
    rows = []
    for number in range(NUM_ROWS):
        prompt = f"Question {number}?" + " Please." * (number * 5 % 7) * (number != 19)
        is_mask = number % 2 == 1
        rows.append(row("building_segmentation" if is_mask else "vqa", prompt, "Yes", [LEFT_HALF] if is_mask else None))
        picture(WIDTH, HEIGHT, seed=number).save(png := io.BytesIO(), format="PNG")
        rows[-1]["image"] = {"bytes": png.getvalue(), "path": None}
    rows[BROKEN_ROW]["metadata"] = "nan"
    return datasets.Dataset.from_list(rows)


def answering(before_call: Callable[[int], None] = lambda call: None) -> Any:
    """Answers that tell which batch a question was in; `.batches` lists the prompts of each call."""

    def answer_fn(model: Any, images: Any, prompts: Sequence[Any], **options: Any) -> list[Answer]:
        before_call(len(answer_fn.batches))
        answer_fn.batches.append([turns[-1].text for turns in prompts])
        if UNANSWERABLE in answer_fn.batches[-1]:
            raise ValueError("no answer to this one")
        return [
            reply(f"{place} of {answer_fn.batches[-1]} <SEG>", columns(0, len(answer_fn.batches[-1][place])))
            for place in range(len(prompts))
        ]

    answer_fn.batches = []
    return answer_fn


def report(folder: Path, answer_fn: Any, settings: EvalSettings = SETTINGS, resume: bool = False) -> dict[str, Any]:
    with Journal(folder, resume=resume) as journal:
        results = evaluate(MODEL, made_up_rows(), settings, journal, answer_fn)
        write_report(results, journal.folder)
    return results


def comparable(folder: Path) -> tuple[Any, list[str], dict[str, bytes]]:
    """results.json and REPORT.md without times and versions, and the pictures."""
    changing = ("started", "seconds", "versions")
    results = read_results(folder / "results.json")
    results["settings"] = {key: value for key, value in results["settings"].items() if key not in changing}
    lines = (folder / "REPORT.md").read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if not line.startswith(tuple(f"| {key} |" for key in changing))]
    assert sorted(path.name for path in folder.iterdir()) == ["REPORT.md", "images", "results.json"]
    return results, lines, {path.name: path.read_bytes() for path in (folder / "images").iterdir()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    answer_fn = answering()
    report(folder, answer_fn)
    assert len(answer_fn.batches) == NUM_CALLS
    return folder


def test_the_whole_report_to_compare_with(uninterrupted: Path) -> None:
    """Errors are rows with their reason, counted per task; the first three picks of each task have pictures."""
    results, lines, pictures = comparable(uninterrupted)
    assert {task: (s["samples"], s["errors"]) for task, s in results["tasks"].items()} == {
        "building_segmentation": (14, 1),
        "vqa": (14, 1),
    }
    assert [entry["number"] for entry in results["samples"]] == list(range(NUM_ROWS))
    assert [entry["index"] for entry in results["samples"]] == [*range(1, NUM_ROWS, 2), *range(0, NUM_ROWS, 2)]
    errors = {entry["index"]: entry["error"] for entry in results["samples"] if entry["error"]}
    assert errors[19] == "ValueError: no answer to this one" and "metadata" in errors[BROKEN_ROW] and len(errors) == 2
    assert lines.count("### Errors: 1") == 2
    assert f"| 19 | {UNANSWERABLE} | ValueError: no answer to this one |" in lines
    assert sorted({name[:10] for name in pictures}) == [f"sample_{n:03d}" for n in (0, 1, 2, 14, 15, 16)]
    assert len({entry["iou"] for entry in results["samples"]}) > 5  # the answers do tell batches apart


def test_a_pick_that_fails_gives_its_pictures_to_no_other(tmp_path: Path) -> None:
    """Who gets pictures must not depend on which process comes first."""
    rows = made_up_rows().select([4, BROKEN_ROW, 8, 10])
    with Journal(tmp_path) as journal:
        results = evaluate(MODEL, rows, SETTINGS, journal, answering())
        write_report(results, journal.folder)
    assert [sorted(entry["images"]) for entry in results["samples"]] == [["input"], [], ["input"], []]


def interrupting(call: int) -> Any:
    """An answer_fn that is interrupted at a call."""

    def interrupt(number: int) -> None:
        if number == call:
            raise KeyboardInterrupt

    return answering(interrupt)


def leave_halfway(folder: Path) -> None:
    """An evaluation of which one window is done."""
    with pytest.raises(KeyboardInterrupt):
        report(folder, interrupting(5))
    assert [path.name for path in (folder / ".partial/windows").iterdir()] == ["00000.json"]


@pytest.mark.parametrize("call", [0, 3, 4, 9, 11, NUM_CALLS - 1])
def test_interrupted_anywhere(call: int, uninterrupted: Path, tmp_path: Path) -> None:
    """The second run has the missing batches alone, composed alike."""
    first, second, whole = interrupting(call), answering(), answering()
    with pytest.raises(KeyboardInterrupt):
        report(tmp_path / "out", first)
    assert (tmp_path / "out").exists() == (call >= 4)  # the first window is four batches
    report(tmp_path / "out", second, resume=True)
    report(tmp_path / "whole", whole)
    assert comparable(tmp_path / "out") == comparable(uninterrupted)
    assert second.batches == whole.batches[-len(second.batches) :]
    assert len(second.batches) <= NUM_CALLS - call + 5  # of half a window: four batches, two of them one by one


def test_interrupted_twice(uninterrupted: Path, tmp_path: Path) -> None:
    leave_halfway(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        report(tmp_path, interrupting(7), resume=True)
    assert len(list((tmp_path / ".partial/windows").iterdir())) == 2
    report(tmp_path, last := answering(), resume=True)
    assert comparable(tmp_path) == comparable(uninterrupted) and len(last.batches) < NUM_CALLS - 8


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"batch_size": 4}, "--batch_size was 2 and is 4; give"),
        ({"model_files": "b"}, "the model's files was '' and is 'b'; give"),
        ({"samples_per_task": 3, "seed": 1}, "--samples_per_task was 0 and is 3, --seed was 0 and is 1, the choice"),
    ],
)
def test_other_settings_are_refused(changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    leave_halfway(tmp_path)
    with pytest.raises(SatlisaError, match=f"--resume: .*{said}"):
        report(tmp_path, answering(), replace(SETTINGS, **changed), resume=True)
    assert (tmp_path / ".partial/windows/00000.json").exists()


def test_other_rows_are_refused(tmp_path: Path) -> None:
    leave_halfway(tmp_path)
    fewer = made_up_rows().select(range(NUM_ROWS - 1))
    with pytest.raises(SatlisaError, match="the choice of rows was"), Journal(tmp_path, resume=True) as journal:
        evaluate(MODEL, fewer, SETTINGS, journal, answering())


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

    patch(satlisa.checkpoint, "load_model", load_model)
    patch(satlisa.checkpoint, "find_model_dir", Path)
    patch(satlisa.dataset, "load_rows", lambda *arguments: made_up_rows())
    patch(satlisa.evaluate, "evaluate", functools.partial(evaluate, answer_fn=answer_fn))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    ("call", "said"),
    [(1, "interrupted"), (11, "interrupted after 16 of 28 samples; run the same command with --resume to go on")],
)
def test_a_signal_is_one_line_and_an_exit_code(
    number: int, code: int, call: int, said: str, tmp_path: Path, monkeypatch: Any, caplog: Any, capsys: Any
) -> None:
    def stop(at: int) -> None:
        if at == call:
            try:
                signal.raise_signal(number)
            finally:
                signal.raise_signal(signal.SIGTERM)  # launchers send a second one

    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    put_stand_ins(monkeypatch.setattr, answering(stop), lambda: None)
    monkeypatch.setattr(sys, "argv", ["infer_dataset.py", *OPTIONS, "--output_dir", str(tmp_path / "out")])
    assert load_script().main() == code
    assert [line for line in caplog.messages if "interrupted" in line] == [f"infer_dataset.py: {said}"]
    assert "Traceback" not in capsys.readouterr().err
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
    assert (tmp_path / "out").exists() == (call == 11)


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
    ("team", "asked", "given"),
    [
        (Team(1, 1, 2), None, "cuda:1"),
        (Team(3, 1, 4), "cuda", "cuda:1"),
        (Team(5, 5, 8), None, "cuda:1"),  # more processes than GPUs
        (Team(1, 1, 2), "cuda:0", "cuda:0"),
        (Team(1, 1, 2), "cpu", "cpu"),
        (Team(), None, None),
    ],
)
def test_each_process_has_a_gpu(team: Team, asked: str | None, given: str | None, monkeypatch: Any) -> None:
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert team.device(asked) == given
    assert current == ([1] if given == "cuda:1" else [])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert team.device(asked) == asked


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
    pair = start(LAUNCH, tmp_path, fail="kill 1")
    said, _ = pair.communicate(timeout=PATIENCE)
    assert pair.returncode != 0 and "run the same command with --resume" in said
    assert not (tmp_path / "results.json").exists()
    done = sorted(path.name for path in (tmp_path / ".partial/windows").iterdir())
    assert "00001.json" in done and "00003.json" not in done
    run_command(tmp_path, "--resume")
    assert comparable(tmp_path) == comparable(command_report)


def test_a_process_that_fails_early_stops_the_others(tmp_path: Path) -> None:
    """The main process fails while the other waits for it; nothing hangs and nothing is left."""
    pair = start(LAUNCH, tmp_path / "out", fail="load 0")
    said, _ = pair.communicate(timeout=PATIENCE)
    assert pair.returncode != 0 and "out of memory, let us say" in said
    assert not (tmp_path / "out").exists()


def test_two_processes_and_a_real_model(tiny_config: ModelConfig, tmp_path: Path, capsys: Any) -> None:
    """`infer_dataset.py` itself: two processes go on where one left off, each sample once, one report."""
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
            patch.setattr(satlisa.evaluate, "evaluate", functools.partial(evaluate, answer_fn=answer_fn))
            patch.setattr(sys, "argv", ["infer_dataset.py", *options, str(tmp_path / folder)])
            assert load_script().main() == code
    torch.set_num_threads(threads)
    alone = capsys.readouterr().out.replace(str(tmp_path / "one"), "")
    done = subprocess.run(
        [*LAUNCH, str(ROOT / "infer_dataset.py"), *options, str(tmp_path / "two"), "--resume"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.replace(str(tmp_path / "two"), "") == alone and alone.count("Report: ") == 1
    assert done.stderr.count("going on after 8 of 28 samples") == 1
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
