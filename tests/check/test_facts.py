"""What is kept of a row: the lengths that training has, sizes of masks, boxes as they are written."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from satlisa.check.facts import Facts, RowReader, boxes_of
from satlisa.check.parts import Part
from satlisa.data.rows import BARE, MASKS, NEGATIVE, TEXT, read_sample
from satlisa.data.sampler import IndexedSampler
from satlisa.model.satlisa import SatLisa
from satlisa.processing.processor import encode_sample
from tests.helpers.dataset_fixtures import make_row

THIN = {"polygons": [[[500, 500], [501, 500], [501, 501], [500, 501]]]}


def facts_of(model: SatLisa, *rows: dict, **changes: object) -> list[Facts]:  # type: ignore[type-arg]
    part = Part("d", "train", IndexedSampler(list(rows)))
    config = replace(model.config, **changes)
    reader = RowReader([part], model.processor, config)
    return [reader((0, index, None)) for index in range(len(rows))]


def test_kinds(tiny_model: SatLisa) -> None:
    none = json.dumps({"polygons": []})
    kinds = [
        one.kind
        for one in facts_of(
            tiny_model,
            make_row(),
            make_row(metadata=none),
            make_row(metadata="{}"),
            make_row(task="vqa", metadata="{}"),
        )
    ]
    assert kinds == [MASKS, NEGATIVE, BARE, TEXT]


def test_lengths_are_those_of_training(tiny_model: SatLisa) -> None:
    rows = [make_row(), make_row(answer="a house " * 40), make_row(task="vqa", metadata="{}", answer="a house " * 400)]
    config = replace(tiny_model.config, max_seq_length=512)
    for one, row in zip(facts_of(tiny_model, *rows, max_seq_length=512), rows, strict=True):
        sample = read_sample(row, one.index)
        encoded = encode_sample(sample, tiny_model.processor, tiny_model.segmenter.inputs, config)
        assert one.is_cut == encoded.shortened
        assert (one.tokens == encoded.length) is not one.is_cut
    assert one.is_cut and one.tokens > 800


def test_a_row_that_does_not_fit_and_one_that_cannot_be_read(tiny_model: SatLisa) -> None:
    broken = {**make_row(), "image": {"bytes": b"no image", "path": None}}
    too_long, unreadable = facts_of(tiny_model, make_row(answer="a house " * 400), broken, max_seq_length=512)
    assert (too_long.kind, too_long.column) == ("", "conversations") and "max_seq_length is 512" in too_long.reason
    assert unreadable.column == "image" and unreadable.task == "building_segmentation"


def test_sizes_of_masks(tiny_model: SatLisa) -> None:
    whole = json.dumps({"polygons": [[[0, 0], [1000, 0], [1000, 1000], [0, 1000]]]})
    usual, thin, full = facts_of(tiny_model, make_row(), make_row(metadata=json.dumps(THIN)), make_row(metadata=whole))
    assert usual.share == pytest.approx(0.02, rel=0.02) and (usual.tiny, usual.masks) == (0, 1)
    assert thin.tiny == 1 and full.share == 1.0
    assert usual.top == (600, 600)


def test_an_image_that_exif_turns(tiny_model: SatLisa) -> None:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(buffer, "JPEG", exif=exif)
    turned, upright = facts_of(tiny_model, make_row(image={"bytes": buffer.getvalue(), "path": None}), make_row())
    assert (turned.orientation, turned.size) == (6, (48, 64)) and (upright.orientation, upright.size) == (1, (64, 48))


def test_boxes_are_kept_as_they_are_written() -> None:
    assert boxes_of("building [10, 20, 30, 40]; plane (1,2,3,4)") == ((10, 20, 30, 40), (1, 2, 3, 4))
    assert boxes_of("[0.1, 0.2, 0.5, 1]") == ((100, 200, 500, 1000),)
    held = {"chip": [0, 0, 512, 512], "objects": [{"bbox": [5, 6, 7, 8]}]}
    assert boxes_of("two", held) == ((5, 6, 7, 8),) and boxes_of("[1, 2]") == ()


def test_rows_that_training_does_not_read_are_pictures(tiny_model: SatLisa) -> None:
    part = Part("d", "test", IndexedSampler([make_row(conversations="{broken")]), is_read=False)
    one = RowReader([part], tiny_model.processor, tiny_model.config)((0, 0, None))
    assert not one.reason and one.key and len(one.thumb) == 256
    assert np.frombuffer(one.thumb, dtype=np.uint8).std() == 0
