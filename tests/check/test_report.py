"""CHECK.md: its tables, from literal facts."""

import pytest
from PIL import Image

from satlisa.check.facts import Facts
from satlisa.check.parts import Part
from satlisa.check.problems import Context
from satlisa.check.report import Report, render
from satlisa.check.sheet import Shown, choose
from satlisa.data.rows import MASKS, TEXT
from satlisa.data.sampler import IndexedSampler

FACTS = [
    Facts(0, 0, "vqa", "a", TEXT, answer="Yes", tokens=100),
    Facts(0, 1, "vqa", "a", TEXT, answer="yes.", tokens=600, is_cut=True),
    Facts(0, 2, "seg", "b|c", MASKS, answer="Here.", tokens=90, masks=3, share=0.02, labels=("roof", "roof", "")),
    Facts(0, 3, "seg", "b|c", column="metadata", reason="is not JSON"),
]


@pytest.fixture(scope="module")
def lines() -> list[str]:
    context = Context([Part("d", "train", IndexedSampler([{}] * 4))], 0.05, 512)
    shown = [Shown(one, "Where? <b>", "There | here", Image.new("RGB", (4, 4))) for one in FACTS[:2]]
    report = Report("DATASET=d", FACTS, ["one *problem*"], [], shown, ["of 4 rows"], context)
    return render(report).splitlines()


def test_problems_come_first(lines: list[str]) -> None:
    assert lines[0] == "# Check of a dataset" and lines[4:7] == ["**1 problem**", "", r"- one \*problem\*"]


def test_rows_by_task_and_source(lines: list[str]) -> None:
    assert "| train | vqa | a | text rows | rows 0, 1 | 2 |" in lines
    assert r"| train | seg | b\|c | mask rows | row 2 | 1 |" in lines
    assert r"| train | seg | b\|c | skipped | row 3 | 1 |" in lines
    assert "- train split of d: 1 row skipped: \\`metadata\\` is not JSON (row 3)" in lines


def test_tokens_masks_answers_classes(lines: list[str]) -> None:
    bars = [line for line in lines if line.startswith(("| 128 ", "| 512 (limit)", "| 768 "))]
    assert [line.split(" | ")[-1] for line in bars] == ["2 |", "0 |", "1 |"]
    assert any("median 100, longest 600; 1 of 3 exceed `max_seq_length` 512" in line for line in lines)
    assert "| 4 | ████████████████████████████████████████ | 1 |" in lines
    assert "| vqa | Yes | 2 | 100.0 % |" in lines
    assert "| roof | 2 | 66.7 % |" in lines and "| not named, or several objects in one mask | 1 | 33.3 % |" in lines


def test_samples(lines: list[str]) -> None:
    place = lines.index('| <img src="check_images/00.jpg" width="240"> | <img src="check_images/01.jpg" width="240"> |')
    assert lines[place + 3] == r"| Where? &lt;b&gt; | Where? &lt;b&gt; |"
    assert lines[place + 4] == r"| *There \| here* | *There \| here* |"


def test_samples_are_usable_and_of_all_tasks() -> None:
    many = [Facts(0, number, "vqa", kind=TEXT) for number in range(50)] + FACTS
    chosen = choose(many, 0)
    assert len(chosen) == 24 and FACTS[2] in chosen and FACTS[3] not in chosen
    assert chosen == choose(many, 0)
