"""`inference.py --output`: a folder of images and a list of prompts → a table."""

import json
import logging
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco
from pycocotools.coco import COCO

from satlisa.cli.table import read_prompts
from satlisa.errors import SatlisaError
from satlisa.inference import generation, table_rows
from satlisa.inference.table import read_rows
from tests.helpers.inference_fixtures import command, refused
from tests.helpers.killed_table import run_and_kill
from tests.helpers.model_fixtures import picture

Call = Callable[..., list[object]]


@pytest.fixture
def call(model_dirs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command about three pictures in `photos`, of which one is broken, with two prompts."""
    monkeypatch.chdir(tmp_path)
    Path("photos/more").mkdir(parents=True)
    for name, seed in (("img10.png", 0), ("img2.png", 1), ("more/img3.png", 2)):
        picture(50, 40, seed=seed).save(f"photos/{name}")
    Path("photos/img5.jpg").write_bytes(b"\xff\xd8\xff")
    Path("prompts.txt").write_bytes("\ufeffSegment\r\n\r\nWhat is it?\r\nSegment\r\n".encode())

    def arguments(model: str = "masks", **changes: object) -> list[object]:
        options = {"model_dir": model_dirs[model], "image": "photos", "prompts": "prompts.txt", "output": "r.jsonl"}
        options |= {"device": "cpu", "max_new_tokens": 2} | changes
        return [part for name, value in options.items() if value is not None for part in (f"--{name}", value)]

    return arguments


def lines(path: str = "r.jsonl") -> list[tuple[str, str, bool]]:
    rows = read_rows(Path(path))
    return [(row["image"], row["prompt"], row["error"] is None) for row in rows]


TABLE = [
    (f"photos/{name}", prompt, name != "img5.jpg")
    for name in ("img2.png", "img5.jpg", "img10.png")
    for prompt in ("Segment", "What is it?")
]


def test_a_folder_becomes_a_table(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    """And the same command again adds what is new, and asks nothing twice."""
    assert command(*call()) == 0
    assert lines() == TABLE
    streams = capsys.readouterr()
    assert "r.jsonl holds 4 answers and 2 errors" in streams.err and "photos/img5.jpg" in streams.err
    before = Path("r.jsonl").read_bytes()
    picture(50, 40, seed=5).save("photos/img1.png")
    assert command(*call()) == 0
    assert lines()[6:] == [("photos/img1.png", prompt, True) for prompt in ("Segment", "What is it?")]
    assert Path("r.jsonl").read_bytes().startswith(before)


def test_a_finished_table_costs_no_model(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command(*call()) == 0
    before = Path("r.jsonl").read_bytes()
    monkeypatch.setattr("satlisa.inference.api.load_model", None)
    assert command(*call()) == 0 and command(*call(format="coco", output="r.json")) == 0
    assert Path("r.jsonl").read_bytes() == before


def test_patterns_and_one_prompt(call: Call) -> None:
    """The output and the prompts lie among the images."""
    Path("prompts.txt").rename("photos/prompts.txt")
    assert command(*call(image="photos/**/*", output="photos/r.jsonl", prompts=None, prompt="Segment")) == 0
    assert command(*call(image="photos/**/*", output="photos/r.jsonl", prompts=None, prompt="Segment")) == 0
    names = ["img2.png", "img5.jpg", "img10.png", "more/img3.png"]
    assert [Path(image) for image, _, _ in lines("photos/r.jsonl")] == [Path("photos", name) for name in names]


def test_a_geotiff_is_a_plain_picture(call: Call, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("rasterio", reason="the extra geo is not installed: bash setup.sh --geo")
    from tests.helpers.scene_files import shapes, write

    write(Path("scene.tif"), np.stack([shapes(70, 90)] * 3), photometric="rgb")
    caplog.set_level(logging.INFO)
    assert command(*call(image="*.tif")) == 0
    assert "--output takes a GeoTIFF as a plain picture, without coordinates" in caplog.text
    assert next(read_rows(Path("r.jsonl")))["masks"][0]["size"] == [70, 90]


def test_masks_of_the_table_are_those_of_a_single_call(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*call(prompts=None, prompt="Segment")) == 0
    capsys.readouterr()
    single = call(image="photos/img2.png", prompts=None, output=None, prompt="Segment", output_mask="m.png")
    assert command(*single) == 0
    row = next(read_rows(Path("r.jsonl")))
    with Image.open("m.png") as mask:
        union = np.any([coco.decode(packed) for packed in row["masks"]], axis=0)
        assert np.array_equal(np.asarray(mask) > 0, union) and row["text"] == capsys.readouterr().out.strip()


def test_coco_results(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*call(format="coco", output="r.json")) == 0
    truth = COCO("r.dataset.json")
    found = truth.loadRes("r.json")
    assert lines() == TABLE  # text and errors
    rows = [row for row in read_rows(Path("r.jsonl")) if row["error"] is None]
    assert len(found.anns) == sum(len(row["masks"]) for row in rows) > 0
    assert [image["file_name"] for image in truth.dataset["images"]] == ["photos/img2.png", "photos/img10.png"]
    assert [category["name"] for category in truth.dataset["categories"]] == ["Segment", "What is it?"]


def test_coco_results_without_masks(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*call("text", format="coco", output="r.json")) == 0
    assert json.loads(Path("r.json").read_text()) == []
    assert "r.json is an empty list, which loadRes refuses" in capsys.readouterr().err


def test_no_answer_at_all_exits_1(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*call(image="photos/*.jpg")) == 1
    assert "No image could be answered." in capsys.readouterr().err
    assert lines() == TABLE[2:4]


@pytest.mark.integration
def test_killed_at_any_moment_no_line_is_lost_or_doubled(call: Call) -> None:
    """SIGKILL when the table has so many bytes; the runs after it give the table of an uninterrupted run."""
    for seed in range(12):
        picture(50, 40, seed=seed).save(f"photos/{seed}.png")
    assert command(*call(output="whole.jsonl")) == 0
    expected = [row | {"seconds": None} for row in read_rows(Path("whole.jsonl"))]
    size = Path("whole.jsonl").stat().st_size
    table = Path("r.jsonl")
    killed = [run_and_kill(call(), table, size * part // 6) for part in range(6)]
    assert sum(killed) > 3
    assert command(*call()) == 0
    assert [row | {"seconds": None} for row in read_rows(table)] == expected


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_says_how_to_resume(
    number: signal.Signals, code: int, call: Call, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The signal comes while the second batch is answered."""
    answer, calls = generation.answer, []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(number)
        return answer(*arguments, **options)

    monkeypatch.setattr(table_rows, "answer", interrupted)
    assert command(*call(batch_size=2)) == code
    assert 0 < len(lines()) < 6
    assert f"interrupted after {len(lines())} of 6 answers; run the same command again to resume" in caplog.text
    assert command(*call(batch_size=2)) == 0
    assert lines() == TABLE


def test_memory_that_ends_costs_no_answer(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = generation.answer

    def small(model: Any, images: Any, prompts: Any, **options: Any) -> Any:
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return answer(model, images, prompts, **options)

    monkeypatch.setattr(table_rows, "answer", small)
    assert command(*call()) == 0
    assert lines() == TABLE


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"output": "r.txt"}, r"--output: expected a name that ends in \.jsonl, found r\.txt"),
        ({"output": "r.json"}, r"ends in \.jsonl, found r\.json; COCO's results need --format coco"),
        ({"format": "coco"}, r"ends in \.json, found r\.jsonl"),
        ({"output": "photos"}, r"--output: photos is a folder; name a \.jsonl file in it"),
        ({"image": "photos/*.tif"}, r"--image: photos/\*\.tif: found no files that match the pattern"),
        ({"prompts": "none.txt"}, r"--prompts: none\.txt cannot be read"),
        ({"prompt": "Segment"}, "--prompt and --prompts were both given"),
        ({"prompts": None, "prompt": " "}, "--prompt: expected a question, found an empty text"),
        ({"output": None}, r"--prompts is for tables; name the table with --output results\.jsonl"),
        ({"output": None, "prompts": None, "prompt": "x", "format": "coco"}, "--format is for tables"),
        ({"overlay": "o.png"}, "--overlay does not go with --output"),
        ({"window": 64}, "--window does not go with --output, which takes every image as a plain picture"),
        ({"batch_size": 0}, "--batch_size: expected at least 1, found 0"),
        ({"temperature": -1}, "temperature: expected 0"),
        ({"model_dir": "./nowhere"}, "nowhere: no such model directory"),
    ],
)
def test_mistakes_cost_no_model(
    changes: dict[str, Any], words: str, call: Call, model_must_not_load: None, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("prompts.txt").write_text("Segment\n")
    Path("photos/img5.jpg").unlink()
    Path("photos/more/img3.png").unlink()
    try:
        code = command(*call(**changes))
    except SystemExit as error:
        code = int(str(error.code))
    assert re.search(words, refused(capsys, code))
    assert not list(Path().glob("*.jsonl*"))


def test_a_pattern_without_quotes_is_explained(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    """The shell gives its files instead."""
    with pytest.raises(SystemExit):
        command(*call(), "photos/img10.png")
    assert "unrecognized arguments: photos/img10.png; put a pattern in quotes, or the shell" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command(*call(), "--nothing")
    assert "unrecognized arguments: --nothing; see --help" in capsys.readouterr().err


def test_another_model_is_refused(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*call()) == 0
    before = Path("r.jsonl").read_bytes()
    assert command(*call("text")) == 2
    assert "of another run (files of --model_dir was" in capsys.readouterr().err
    assert Path("r.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xef\xbb\xbfone\r\ntwo\r\n", ("one", "two")),
        (b"one\ntwo", ("one", "two")),
        (b"one\rtwo\r", ("one", "two")),
        ("  Où?  \n\n\t\nOù?\n".encode(), ("Où?",)),
        ("a\u2028b\n".encode(), ("a\u2028b",)),
    ],
)
def test_prompts_of_any_editor(content: bytes, expected: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes(content)
    assert read_prompts(tmp_path / "p.txt") == expected


def test_prompts_left_out_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "p.txt").write_text("a\n\nb\na\n a\n\n")
    assert read_prompts(tmp_path / "p.txt") == ("a", "b")
    assert "repeated prompts, asked once: 2" in caplog.text and "blank lines, left out: 2" in caplog.text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "expected a prompt per line, found no prompt"),
        (b"\n \n", "found no prompt"),
        (b"caf\xe9\n", "is not UTF-8"),
        ("a\n".encode("utf-16"), "is not UTF-8"),
        ("a\n".encode("utf-16-le"), "found binary data"),
    ],
)
def test_prompts_that_cannot_be_read(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes(content)
    with pytest.raises(SatlisaError, match=rf"--prompts: .*p\.txt.* {words}"):
        read_prompts(tmp_path / "p.txt")
