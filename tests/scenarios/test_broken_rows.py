"""Every kind of broken and odd row: used as a person would expect, or skipped with a reason, quickly, alone and in a
dataset of all of them."""

import json
import re
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from satlisa.config import ModelConfig
from satlisa.data.dataset import load_rows
from satlisa.data.rows import read_sample
from satlisa.data.sample import RowError, Sample
from satlisa.evaluation.evaluate import evaluate
from satlisa.evaluation.report import write_report
from satlisa.evaluation.windows import EvalSettings
from satlisa.geometry.raster import rasterize
from satlisa.inference.generation import Answer
from satlisa.processing.collator import Encoded
from satlisa.training import train as run_module
from tests.helpers.broken_rows import BROKEN_ROWS, write_parquet
from tests.helpers.model_fixtures import make_model
from tests.helpers.quick import quick
from tests.helpers.row_cases import Case, Skipped, Usable, case, mask_case
from tests.helpers.runs import settings
from tests.helpers.token_checks import Reader, check_tokens

pytestmark = pytest.mark.integration

LONGEST = 3.0  # seconds of this process's time for one row; before they were read within limits, some took a minute
NAMES = [case.name for case in BROKEN_ROWS]
GOOD = [mask_case("good", Usable(1)), case("good", Usable())]
USABLE = {case.name for case in BROKEN_ROWS if isinstance(case.expected, Usable)}
REFUSED_WHEN_ENCODED = ("max_seq_length", "1×5000", "5000×1")  # an evaluation reads rows and encodes none


@pytest.fixture(scope="module")
def reader(tiny_config: ModelConfig) -> Reader:
    return Reader(make_model(tiny_config))


def read_and_encode(row: dict[str, Any], reader: Reader) -> tuple[Sample, Encoded]:
    sample = read_sample(row, 7)
    return sample, reader.encode(sample)


@pytest.mark.parametrize("case", BROKEN_ROWS, ids=NAMES)
def test_a_row_is_what_is_expected(case: Case, reader: Reader) -> None:
    with quick(LONGEST):
        check(case, reader)


def check(case: Case, reader: Reader) -> None:
    try:
        sample, encoded = read_and_encode(case.row, reader)
    except RowError as error:
        assert isinstance(case.expected, Skipped), error
        assert (error.index, error.column) == (7, case.expected.column)
        assert case.expected.reason in error.reason and str(error).startswith(f"row 7: `{error.column}` ")
        assert str(error).isprintable() and len(str(error)) < 400
    else:
        assert isinstance(case.expected, Usable), "expected to be skipped"
        check_usable(sample, encoded, case.expected)
        check_tokens(sample, encoded, reader)


def check_usable(sample: Sample, encoded: Encoded, expected: Usable) -> None:
    assert len(sample.regions) == len(encoded.mask_targets) == expected.masks
    assert expected.question in (None, sample.turns[-1].text) and expected.answer in (None, sample.answer)
    assert expected.size in (None, sample.image.size)
    assert expected.pixel in (None, sample.image.getpixel((0, 0)))
    if expected.area is not None:
        drawn = rasterize([ring for region in sample.regions for ring in region], 200, 200)
        assert drawn.mean() == pytest.approx(expected.area, abs=0.01)
    assert all(target[valid].sum() > 0 for target, valid in zip(encoded.mask_targets, encoded.mask_valid, strict=True))


def test_the_suite_is_large_and_its_names_are_different() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 200 and 80 < len(USABLE) < len(NAMES) - 80


@pytest.mark.parametrize("name", [name for name in NAMES if "2,000 of the whole" in name or "jump" in name])
def test_no_row_takes_much_memory(name: str, reader: Reader) -> None:
    row = BROKEN_ROWS[NAMES.index(name)].row
    tracemalloc.start()
    try:
        read_and_encode(row, reader)
    except RowError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 200e6


def expect_skips(cases: list[Case]) -> dict[int, str]:
    """Row numbers that are skipped, with the column."""
    return {index: c.expected.column for index, c in enumerate(cases) if isinstance(c.expected, Skipped)}


def test_training_goes_through_all_of_them(tiny_config: ModelConfig, tmp_path: Path) -> None:
    cases = [*BROKEN_ROWS, *GOOD * 4]
    rows = [case.row for case in cases]
    write_parquet(tmp_path / "data", {"train": rows, "validation": rows[-4:]})
    made = settings(tiny_config, tmp_path / "data", tmp_path / "run", EPOCHS="1", MAX_SKIP="1", BATCH_SIZE="8")
    folder = run_module.train(made)
    log = [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]
    assert log and all(np.isfinite(record["loss"]) for record in log)
    check_skip_lines(json.loads((folder / "train_summary.json").read_text())["skipped_rows"], expect_skips(cases))


def check_skip_lines(lines: list[str], expected: dict[int, str]) -> None:
    """Every skipped row is counted in the line of its column, and by number unless ten others stand there."""
    counted = 0
    for line in lines:
        count, column, rows = re.fullmatch(
            r"(\d+) rows? skipped: `(\w+)` .* \(rows? ([\d, ]+)(?: and \d+ more)?\)", line
        ).groups()  # type: ignore[union-attr]
        numbers = list(map(int, rows.split(",")))
        assert [expected[number] for number in numbers] == [column] * len(numbers)
        assert len(numbers) == min(int(count), 10)
        counted += int(count)
    assert counted == len(expected)


def test_evaluation_goes_through_all_of_them(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data", {"validation": [case.row for case in BROKEN_ROWS]})
    rows = load_rows(str(tmp_path / "data"), "validation")
    model: Any = SimpleNamespace(config=SimpleNamespace(seg_token="<SEG>", max_instances=32), device="cpu")

    def answer_fn(_: Any, images: Any, prompts: Any, **__: Any) -> list[Answer]:
        masks = [np.ones((1, image.height, image.width), dtype=bool) for image in images]
        return [Answer("yes <SEG>", mask, np.ones(1, dtype=np.float32), []) for mask in masks]

    results = evaluate(model, rows, EvalSettings(samples_per_task=0), answer_fn=answer_fn)
    entries = {entry["index"]: entry for entry in results["samples"]}
    assert sorted(entries) == list(range(len(BROKEN_ROWS)))
    for index, row in enumerate(BROKEN_ROWS):
        entry = entries[index]
        if isinstance(row.expected, Usable) or any(piece in row.expected.reason for piece in REFUSED_WHEN_ENCODED):
            assert entry["error"] is None and entry["output"] == "yes <SEG>", row.name
        else:
            assert entry["error"].startswith(f"row {index}: `{row.expected.column}` "), row.name
    counts = results["tasks"].values()
    errors = sum(entry["error"] is not None for entry in entries.values())
    assert sum(task["samples"] for task in counts) == len(BROKEN_ROWS)
    assert sum(task["errors"] for task in counts) == errors > 80
    write_report(results, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["samples"] == results["samples"]
