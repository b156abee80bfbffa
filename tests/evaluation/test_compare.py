"""Comparisons of two evaluations: what is paired, what is refused, what is written."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from satlisa.errors import SatlisaError
from satlisa.evaluation.compare import COMPARE_FILE, compare, plain_text, render, write_comparison
from satlisa.evaluation.scoring.bootstrap import mean_of


def sample(index: int, task: str = "vqa", **known: Any) -> dict[str, Any]:
    texts = {"prompt": f"Question {index}?", "expected": "Yes", "output": "Yes", "error": None}
    return {"task": task, "index": index, **texts, "correct": True, **known}


def results(samples: list[dict[str, Any]], **settings: Any) -> dict[str, Any]:
    return {"settings": {"model_dir": "model", "dataset": "demo", **settings}, "tasks": {}, "samples": samples}


def statistics_of(entries):
    found = {"accuracy": mean_of([entry["correct"] for entry in entries])} if entries else {}
    if any("new" in entry for entry in entries):
        found["new"] = mean_of([entry["new"] for entry in entries])
    return found


def many(share: float, seed: int, number: int = 200) -> list[dict[str, Any]]:
    right = np.random.default_rng(seed).random(number) < share
    return [sample(index, correct=bool(value)) for index, value in enumerate(right)]


def test_values_differences_and_paired_intervals() -> None:
    first = many(0.5, seed=0)
    second = [{**entry, "correct": True} if entry["index"] % 20 == 0 else entry for entry in first]
    (row,) = compare(results(first), results(second), statistics_of).rows
    rights = [sum(entry["correct"] for entry in samples) / 200 for samples in (first, second)]
    assert (row.task, row.key, row.samples, row.errors) == ("vqa", "accuracy", 200, (0, 0))
    assert [row.first, row.second, row.difference] == pytest.approx([*rights, rights[1] - rights[0]])
    assert row.interval[0] <= row.difference <= row.interval[1] < 0.1  # alone, either moves by ± 0.07


def test_a_file_equals_itself_in_any_order() -> None:
    samples = [*many(0.5, seed=1), *(sample(index, "other") for index in range(3))]
    found = compare(results(samples), results(samples[::-1]), statistics_of)
    assert [(row.task, row.difference, row.interval) for row in found.rows] == [
        ("other", 0.0, [0.0, 0.0]),
        ("vqa", 0.0, [0.0, 0.0]),
    ]
    assert found.notes == []


def test_failures_leave_both_and_are_counted() -> None:
    first = [sample(0), sample(1, correct=False), sample(2, error="out of memory"), sample(3)]
    second = [sample(0), sample(1), sample(2), sample(3, prompt=None, expected=None, output=None, error="no image")]
    found = compare(results(first), results(second), statistics_of)
    (row,) = found.rows
    assert (row.samples, row.errors, row.first, row.second) == (2, (1, 1), 0.5, 1.0)
    assert found.notes == ["Rows that failed in A and in B, and count in no score: vqa 1 and 1."]


def test_a_task_without_an_answer_has_a_note_and_no_row() -> None:
    failed = [sample(0, error="x"), sample(1, error="x")]
    found = compare(results(failed), results([sample(0), sample(1)]), statistics_of)
    assert found.rows == [] and "vqa 2 and 0" in found.notes[0]
    assert "vqa 2 and 0" in plain_text(found)


def test_a_score_without_a_value_has_no_difference() -> None:
    (row,) = compare(results([sample(0, correct=None)]), results([sample(0)]), statistics_of).rows
    assert (row.first, row.second, row.difference, row.interval) == (None, 1.0, None, None)
    assert "–" in plain_text(compare(results([sample(0, correct=None)]), results([sample(0)]), statistics_of))


def test_scores_that_one_file_lacks_are_named() -> None:
    old, new = results([sample(0)]), results([sample(0, new=0.5)])
    found = compare(old, new, statistics_of)
    assert [row.key for row in found.rows] == ["accuracy"]
    assert found.notes == ["vqa: only B holds what new needs; evaluate the other one again with this version."]
    assert compare(new, old, statistics_of).notes[0].startswith("vqa: only A holds")
    assert compare(old, new, statistics_of, keys=["accuracy"]).notes == []
    assert [row.key for row in compare(new, new, statistics_of, keys=["new", "accuracy", "x"]).rows] == [
        "new",
        "accuracy",
    ]


def test_settings_that_differ_are_noted() -> None:
    first, second = results([sample(0)], dataset="demo", seed=0), results([sample(0)], dataset="./copy", seed=0)
    second["settings"] |= {"model_dir": "other", "seconds": 3, "max_new_tokens": 9}
    assert compare(first, second, statistics_of).notes == [
        "Settings that differ: dataset demo and ./copy; max_new_tokens null and 9."
    ]


@pytest.mark.parametrize("known", [{"correct": "yes"}, {"correct": [1]}, {"correct": {}}, {"correct": 10**400}])
def test_samples_that_cannot_be_scored_are_an_error(known) -> None:
    with pytest.raises(SatlisaError, match=r"B\.json: task 'vqa': its samples cannot be scored"):
        compare(results([sample(0)]), results([sample(0, **known)]), statistics_of, names=("A.json", "B.json"))
    without = sample(0)
    del without["correct"]
    with pytest.raises(SatlisaError, match="KeyError"):
        compare(results([without]), results([sample(0)]), statistics_of)


def write(folder: Path, name: str, content: Any) -> Path:
    (folder / name).mkdir()
    path = folder / name / "results.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_the_table_is_printed_and_written(tmp_path) -> None:
    first = write(tmp_path, "a", results([sample(0, "a|b"), sample(1, "a|b", correct=False)], model_dir="one"))
    second = write(tmp_path, "b", results([sample(0, "a|b"), sample(1, "a|b")], model_dir="two"))
    table = write_comparison(first, second, tmp_path / "out" / "deep", statistics_of)
    assert table.splitlines()[:2] == ["A: one, demo", "B: two, demo"]
    assert table.splitlines()[4].split() == "a|b accuracy 2 0 0 0.500 1.000 +0.500 +0.000 to +1.000".split()  # noqa: SIM905
    text = (tmp_path / "out" / "deep" / COMPARE_FILE).read_text(encoding="utf-8")
    assert r"| a\|b | accuracy | 2 | 0 | 0 | 0.500 | 1.000 | +0.500 | +0.000 to +1.000 |" in text
    again = write_comparison(first.parent, second.parent, tmp_path / "out" / "deep", statistics_of)  # of folders
    assert again == table
    assert [path.name for path in (tmp_path / "out" / "deep").iterdir()] == [COMPARE_FILE]


def test_nothing_of_the_user_is_replaced(tmp_path) -> None:
    path = write(tmp_path, "a", results([sample(0)]))
    for number, create in enumerate(
        (lambda p: p.write_text("# My notes"), lambda p: p.write_bytes(b"\xff"), Path.mkdir)
    ):
        folder = tmp_path / f"out{number}"
        folder.mkdir()
        create(folder / COMPARE_FILE)
        before = None if number == 2 else (folder / COMPARE_FILE).read_bytes()
        with pytest.raises(SatlisaError, match=r"expected no file or an earlier comparison at .*COMPARE\.md"):
            write_comparison(path, path, folder, statistics_of)
        assert number == 2 or (folder / COMPARE_FILE).read_bytes() == before
    write_comparison(path, path, path.parent, statistics_of)  # beside a report of ours
    assert json.loads(path.read_text()) == results([sample(0)])


def test_an_output_that_cannot_be_written_is_an_error(tmp_path) -> None:
    path = write(tmp_path, "a", results([sample(0)]))
    with pytest.raises(SatlisaError, match="--output_dir: expected a folder"):
        write_comparison(path, path, path, statistics_of)


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", "[" * 100_000, "{}", '{"settings": 1, "tasks": 1, "samples": 1}', "\x00", "nan"]
)
def test_files_of_others_are_one_line_errors(content, tmp_path) -> None:
    path = write(tmp_path, "a", results([sample(0)]))
    other = write(tmp_path, "b", content)
    with pytest.raises(SatlisaError) as raised:
        write_comparison(path, other, tmp_path / "out", statistics_of)
    assert str(other) in str(raised.value) and not (tmp_path / "out").exists()
    with pytest.raises(SatlisaError, match="not a readable"):
        write_comparison(path, tmp_path / "nowhere", tmp_path / "out", statistics_of)


def test_control_characters_reach_no_terminal_and_no_markup_the_page() -> None:
    task = "\x1b[31mred\n<script>\ud800"
    found = compare(results([sample(0, task)]), results([sample(0, task)]), statistics_of)
    assert "?[31mred?<script>?" in plain_text(found)
    assert "<script>" not in render(found) and "\x1b" not in render(found)
    render(found).encode(errors="replace")


def test_what_is_compared_is_not_changed() -> None:
    first, second = results(many(0.4, 2)), results(many(0.6, 3))
    before = copy.deepcopy((first, second))
    compare(first, second, statistics_of)
    assert (first, second) == before
