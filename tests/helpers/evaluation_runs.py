"""Evaluations of made-up rows, in this process and in others.

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
from pathlib import Path
from typing import Any

import datasets
import pytest

import satlisa.data.dataset
import satlisa.evaluation.evaluate
import satlisa.pretrained.model_directory
from satlisa.evaluation.evaluate import evaluate
from satlisa.evaluation.report import read_results
from satlisa.evaluation.windows import EvalSettings
from satlisa.inference.generation import Answer
from tests.helpers.made_up_answers import HEIGHT, LEFT_HALF, MODEL, WIDTH, columns, reply, row
from tests.helpers.model_fixtures import picture
from tests.helpers.paths import ROOT

SETTINGS = EvalSettings(samples_per_task=0, batch_size=2, report_samples=3)  # windows of 8


NUM_ROWS, NUM_CALLS = 28, 16  # 14 batches, one of which fails and is asked again one by one


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


def comparable(folder: Path) -> tuple[Any, list[str], dict[str, bytes]]:
    """results.json and REPORT.md without times and versions, and the pictures."""
    changing = ("started", "seconds", "versions")
    results = read_results(folder / "results.json")
    results["settings"] = {key: value for key, value in results["settings"].items() if key not in changing}
    lines = (folder / "REPORT.md").read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if not line.startswith(tuple(f"| {key} |" for key in changing))]
    assert sorted(path.name for path in folder.iterdir()) == ["REPORT.md", "images", "results.json"]
    return results, lines, {path.name: path.read_bytes() for path in (folder / "images").iterdir()}


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
