"""Rows of a table: answers in batches, in order, and what is done about failures."""

import logging
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco

from satlisa.errors import SatlisaError
from satlisa.inference import api, table_rows
from satlisa.inference.decoding import Sampling
from satlisa.inference.generation import Answer
from satlisa.inference.table_rows import Request, make_rows
from satlisa.model.satlisa import SatLisa
from tests.helpers.model_fixtures import picture


def request(*prompts: str, batch_size: int = 8, tokens: int = 3) -> Request:
    return Request(prompts, tokens, Sampling(), batch_size)


def pictures(folder: Path, count: int, size: tuple[int, int] = (50, 40)) -> list[str]:
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        picture(*size, seed=number).save(path)
    return [str(path) for path in paths]


class Batches:
    """Stands in for `answer`: notes which batches come, and fails where it is told to."""

    def __init__(self, most: int = 99, poison: str = "") -> None:
        self.sizes: list[int] = []
        self.images: list[int] = []
        self.most, self.poison = most, poison

    def __call__(self, model: Any, images: Sequence[Image.Image], prompts: Sequence[str], **_: Any) -> list[Answer]:
        self.sizes.append(len(prompts))
        self.images.append(len({id(image) for image in images}))
        if len(prompts) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if self.poison and self.poison in prompts:
            raise SatlisaError("the prompt is too long")
        empty = np.zeros((0, 1, 1), dtype=bool), np.zeros(0, dtype=np.float32)
        return [Answer(f"{image.size} {prompt}", *empty, []) for image, prompt in zip(images, prompts, strict=True)]


class NoModel:
    device = torch.device("cpu")
    segmenter = SimpleNamespace(inputs=SimpleNamespace(image_size=64))


def run(images: list[str], asked: Request, batches: Any, monkeypatch: pytest.MonkeyPatch, done: Any = ()) -> list[Any]:
    monkeypatch.setattr(table_rows, "answer", batches)
    return [row for rows in make_rows(NoModel(), images, asked, done) for row in rows]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def talkative(model_dirs: dict[str, Path]) -> SatLisa:
    return api.load_model(model_dirs["masks"], "cpu")


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_rows_are_what_ask_answers(orientation: int, talkative: SatLisa, tmp_path: Path) -> None:
    """Masks lie on the stored pixels, also of photos that EXIF turns."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture(50, 40).save(tmp_path / "turned.jpg", exif=exif)
    image = str(tmp_path / "turned.jpg")
    (rows,) = make_rows(talkative, [image], request("Segment", "Segment it"), ())
    assert [row["prompt"] for row in rows] == ["Segment", "Segment it"]
    for row in rows:
        found = api.ask(talkative, image, row["prompt"], 3)
        assert row["text"] == found.text and row["error"] is None and found.num_segs > 0
        masks = np.array([coco.decode(packed) for packed in row["masks"]], dtype=bool)
        assert np.array_equal(masks, found.masks) and masks.shape[1:] == (40, 50)
        assert np.allclose(row["scores"], found.scores, atol=1e-5)
        assert [packed["size"] for packed in row["masks"]] == [[40, 50]] * len(masks)
        for mask, (left, top, width, height) in zip(masks, row["boxes"], strict=True):
            rows_, columns = np.nonzero(mask)
            box = (columns.min(), rows_.min(), columns.max() + 1, rows_.max() + 1) if mask.any() else (0, 0, 0, 0)
            assert (left, top, left + width, top + height) == box
        assert (row["width"], row["height"], row["bytes"]) == (50, 40, Path(image).stat().st_size)
        assert row["seconds"] > 0


def test_prompts_of_an_image_share_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = Batches()
    rows = run(pictures(tmp_path, 5), request("a", "b", "c"), batches, monkeypatch)
    assert batches.sizes == [6, 6, 3] and batches.images == [2, 2, 1]  # two images with all their prompts
    assert [(Path(row["image"]).name, row["prompt"]) for row in rows] == [
        (f"{number}.png", prompt) for number in range(5) for prompt in "abc"
    ]
    batches = Batches()
    run(pictures(tmp_path, 2), request(*"abcdefghij"), batches, monkeypatch)
    assert batches.sizes == [8, 2, 8, 2] and batches.images == [1, 1, 1, 1]


def test_large_images_are_answered_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(tmp_path, 4)
    monkeypatch.setattr(table_rows, "_PIXELS", 2 * 50 * 40)
    monkeypatch.setattr(table_rows, "_UNION_PIXELS", 3 * 50 * 40)
    batches = Batches()
    assert len(run(images, request("a", "b"), batches, monkeypatch)) == 8
    assert batches.sizes == [3, 1, 3, 1]
    picture(10, 8).save(images[0])  # a small one that comes first makes the large one beside it no smaller
    batches = Batches()
    run(images[:2], request("a", "b"), batches, monkeypatch)
    assert batches.sizes == [3, 1]


def test_a_broken_image_is_a_row_with_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(tmp_path, 3)
    Path(images[1]).write_bytes(b"\x89PNG\r\n\x1a\n")
    images.insert(2, str(tmp_path / "gone.png"))
    rows = run(images, request("a", "b"), Batches(), monkeypatch)
    assert [row["error"] is None for row in rows] == [True] * 2 + [False] * 4 + [True] * 2
    assert "1.png" in rows[2]["error"] and "gone.png: no such file" in rows[4]["error"]
    assert [rows[n]["bytes"] for n in (2, 4)] == [8, None]
    assert rows[2] | {"image": "", "prompt": "", "error": "", "bytes": 0} == {
        "image": "", "prompt": "", "text": None, "masks": [], "boxes": [], "scores": [], "width": None, "height": None,
        "bytes": 0, "seconds": None, "error": "",
    }  # fmt: skip


def test_out_of_memory_halves_the_batches_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gc.collect", lambda: 0)  # takes a second here
    batches = Batches(most=2)
    rows = run(pictures(tmp_path, 2), request(*"abcdefgh"), batches, monkeypatch)
    assert batches.sizes == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
    assert len(rows) == 16 and all(row["error"] is None for row in rows)
    assert caplog.text.count("out of memory with a batch of") == 2 and "going on with 2" in caplog.text
    rows = run(pictures(tmp_path, 1), request("a", "b"), Batches(most=0), monkeypatch)
    assert [row["error"][:41] for row in rows] == ["OutOfMemoryError: CUDA out of memory. Tri"] * 2


def test_one_bad_question_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    batches = Batches(poison="b")
    rows = run(pictures(tmp_path, 2), request(*"abc"), batches, monkeypatch)
    assert [row["error"] for row in rows] == [None, "the prompt is too long", None] * 2
    assert batches.sizes == [6, 1, 1, 1, 1, 1, 1]
    assert "repeated one by one (the prompt is too long)" in caplog.text


def test_only_what_is_missing_comes_in_the_batches_of_an_uninterrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    images, batches = pictures(tmp_path, 6), Batches()
    done = {(image, prompt) for image in images[:2] for prompt in "ab"} | {(images[2], "a"), (images[5], "b")}
    rows = run(images, request("a", "b", batch_size=4), batches, monkeypatch, done)
    left = [(2, "b"), (3, "a"), (3, "b"), (4, "a"), (4, "b"), (5, "a")]
    assert [(row["image"], row["prompt"]) for row in rows] == [(images[n], prompt) for n, prompt in left]
    assert batches.sizes == [4, 4]


def test_images_far_too_large_are_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run(pictures(tmp_path, 2, (256, 20)), request("a"), Batches(), monkeypatch)
    assert not caplog.text
    run(pictures(tmp_path, 3, (320, 20)), request("a", batch_size=1), Batches(), monkeypatch)
    assert (
        caplog.text.count("0.png: the image of 320 × 20 pixels is reduced 5.0-fold") == caplog.text.count("fold") == 1
    )


def test_rows_come_batch_by_batch_and_finished_batches_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many questions about one image, an interruption costs a batch, not all."""
    batches = Batches()
    monkeypatch.setattr(table_rows, "answer", batches)
    (image,) = pictures(tmp_path, 1)
    asked = request(*"abcdef", batch_size=2)
    parts = [[row["prompt"] for row in rows] for rows in make_rows(NoModel(), [image], asked, ())]  # type: ignore[arg-type]
    assert parts == [["a", "b"], ["c", "d"], ["e", "f"]]
    done = {(image, prompt) for prompt in "abc"}
    rows = run([image], asked, batches, monkeypatch, done)
    assert [row["prompt"] for row in rows] == ["d", "e", "f"] and batches.sizes == [2, 2, 2, 2, 2]
