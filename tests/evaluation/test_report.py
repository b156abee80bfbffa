"""The report's files: what they hold, and that they never take anybody's place."""

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from satlisa.errors import SatlisaError
from satlisa.evaluation.metrics import summarise
from satlisa.evaluation.report import escape, headline, plain_table, read_results, render, save_pictures, write_report


def entry(number: int, task: str, **known: Any) -> dict[str, Any]:
    keys = (
        "source",
        "prompt",
        "expected",
        "output",
        "iou",
        "intersection",
        "union",
        "correct",
        "exact_match",
        "error",
    )
    counts = {"segs": 0, "expected_segs": 0, "images": {}}
    return {"number": number, "index": number + 40, "task": task, **dict.fromkeys(keys), **counts, **known}


def make_results(samples: list[dict[str, Any]]) -> dict[str, Any]:
    tasks = {
        task: summarise(s for s in samples if s["task"] == task) for task in dict.fromkeys(s["task"] for s in samples)
    }
    settings = {
        "model_dir": "runs/demo_1",
        "dataset": "demo",
        "split": "test",
        "seed": 0,
        "versions": {"torch": "2"},
    }
    return {"settings": settings, "tasks": tasks, "samples": samples}


TEXT = entry(
    0,
    "scene_classification",
    source="EuroSAT",
    prompt="Classify | this\nimage",
    expected="Forest",
    output="`<b>Forest</b>` | *lake*",
    correct=False,
    exact_match=False,
    images={"input": "images/sample_000_input.png"},
)
MASK = entry(
    3,
    "building_segmentation",
    prompt="Segment the buildings",
    expected="Here <SEG>",
    output="Here <SEG> <SEG> <SEG>",
    iou=0.75,
    intersection=3,
    union=4,
    segs=3,
    expected_segs=1,
    images={k: f"images/sample_003_{k}.png" for k in ("input", "gt_mask", "pred_mask", "overlay")},
)
BROKEN = entry(4, "building_segmentation", error="row 44: `metadata` is not JSON (starts with 'nan')")


def test_report_holds_summary_samples_pictures_and_errors() -> None:
    text = render(make_results([TEXT, MASK, BROKEN]))
    assert text.startswith("# Evaluation: runs/demo\\_1 on demo, test split\n")
    summary = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    assert (
        re.sub(r"\s+", "", summary[r"building\_segmentation"])
        == r"|building\_segmentation|2|1|0.750|0.750|–|–|–|100.0%|"
    )
    assert re.sub(r"\s+", "", summary[r"scene\_classification"]) == r"|scene\_classification|1|0|–|–|0.0%|1|0.0%|0.0%|"
    assert "### Sample 000 · row 40 · EuroSAT" in text
    assert "### Sample 003 · row 43\n" in text
    for picture in (*TEXT["images"].values(), *MASK["images"].values()):
        assert text.count(f'<img src="{picture}"') == 1
    assert "| Input | Ground truth | Prediction | Overlay |" in text
    assert "| Prompt | Expected | Output | IoU |" in text
    assert "| Segment the buildings | Here &lt;SEG&gt; | Here &lt;SEG&gt; ×3 | 0.750 |" in text
    escaped = r"\`&lt;b&gt;Forest&lt;/b&gt;\` \| \*lake\*"
    assert f"| Classify \\| this image | Forest | {escaped} | ❌ wrong |" in text
    assert "### Errors: 1" in text and "row 44: \\`metadata\\` is not JSON" in text
    assert "not shown" not in text


def test_report_says_what_it_leaves_out() -> None:
    hidden = [entry(n, "scene_classification", correct=True, exact_match=True) for n in range(1, 5)]
    assert "Scored but not shown here: 4 samples; results.json has every one." in render(make_results([TEXT, *hidden]))


def test_every_table_row_has_as_many_cells_as_its_head() -> None:
    width = None
    for line in render(make_results([TEXT, MASK, BROKEN])).splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else None
        assert width is None or cells is None or cells == width, line
        width = cells


NASTY = [
    "a | b",
    "line\nbreak\r\n\ttab",
    "`code` ``x``",
    "<b>bold</b> <script>alert(1)</script> <SEG>",
    "AT&T &lt; &amp; &copy;",
    "*a* _b_ **c** ~~d~~ [l](http://x) ![i](y) # h $x^2$",
    "trailing backslash \\",
    "\\| \\\\ \\*",
    "| --- |",
    "🛰️ 中文 Straße",
]


@pytest.mark.parametrize("text", NASTY)
def test_escaped_text_is_shown_as_it_is(text: str) -> None:
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable(["table", "strikethrough"])
    page = markdown.render(f"| a | b |\n| --- | --- |\n| {escape(text)} | end |\n")
    cells = re.findall(r"<td>(.*?)</td>", page, flags=re.DOTALL)
    assert [html.unescape(cell) for cell in cells] == [" ".join(text.split()), "end"]


def test_escape_cuts_long_text_and_counts_segs() -> None:
    assert escape("<SEG>" + " <SEG>" * 31) == "&lt;SEG&gt; ×32"
    assert escape("one <SEG>") == "one &lt;SEG&gt;"
    assert escape("x" * 600) == "x" * 600
    assert escape("x" * 601) == "x" * 599 + "…"
    assert escape("a\x00b\x1b") == "a\ufffdb\ufffd"


def test_pictures_are_the_masks_themselves(tmp_path: Path) -> None:
    image = Image.new("RGB", (30, 20), (10, 20, 30))
    truth, prediction = np.zeros((2, 20, 30), dtype=bool)
    truth[2:10, 3:12] = True
    prediction[4:18, 5:25] = True
    (tmp_path / "images").mkdir()
    paths = save_pictures(tmp_path / "images", 7, image, truth, prediction)
    assert paths == {k: f"images/sample_007_{k}.png" for k in ("input", "gt_mask", "pred_mask", "overlay")}
    for kind, mask in (("gt_mask", truth), ("pred_mask", prediction)):
        with Image.open(tmp_path / paths[kind]) as saved:
            assert saved.mode == "L"
            np.testing.assert_array_equal(np.asarray(saved), mask * 255)
    with Image.open(tmp_path / paths["input"]) as saved:
        assert saved.size == (30, 20) and saved.getpixel((0, 0)) == (10, 20, 30)
    assert save_pictures(tmp_path / "images", 8, image, None, None) == {"input": "images/sample_008_input.png"}
    assert len(list((tmp_path / "images").iterdir())) == 5


def test_headline_and_plain_table() -> None:
    results = make_results([TEXT, MASK, BROKEN])
    assert headline(results) == [
        "Masks: gIoU 0.750, cIoU 0.750 of 1 samples",
        "Classes and yes/no: 0.0% right of 1 answers",
        "<SEG>: in 100.0% of the answers that need a mask, in 0.0% of the others",
    ]
    lines = plain_table(results).splitlines()
    assert len(lines) == 3 and len({len(line) for line in lines}) == 1
    assert lines[2].split()[:4] == ["building_segmentation", "2", "1", "0.750"]


def test_results_are_strict_json(tmp_path: Path) -> None:
    odd = make_results([{**TEXT, "output": "lone \ud800 surrogate, 🛰️"}])
    write_report(odd, tmp_path)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    loaded = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert loaded == odd == read_results(tmp_path / "results.json")
    with pytest.raises(ValueError, match="JSON"):
        write_report(odd | {"settings": {"seconds": float("nan")}}, tmp_path)


@pytest.mark.parametrize("content", ["[]", "{oops", '{"settings": {}}'])
def test_results_of_somebody_else(tmp_path: Path, content: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(SatlisaError, match=r"results\.json"):
        read_results(tmp_path / "results.json")
