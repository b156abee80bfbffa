"""Places of objects in answers."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from satlisa.data.conversations import count_segs
from satlisa.data.rows import read_sample
from satlisa.data.sample import Sample
from satlisa.geometry.regions import LabelledRegion
from satlisa.model.satlisa import SatLisa
from satlisa.processing.places import describe_places
from satlisa.processing.processor import encode_sample
from tests.helpers.model_fixtures import box, encode, make_samples, picture

OBJECTS = [
    {"label": "plane", "bbox": [600, 500, 700, 580]},
    {"category": "building", "polygon": [[412, 88], [530, 88], [530, 190], [412, 190]]},
    {"points": [[10, 88], [60, 88], [60, 120]]},
]


def read(objects: list[dict[str, object]], answer: str = "I found 3 objects.", **changes: object) -> Sample:
    turns = [{"role": "user", "content": "Detect"}, {"role": "assistant", "content": answer}]
    row = {"task": "instance_segmentation", "source": "s", "image": picture(64, 64), "conversations": json.dumps(turns)}
    return read_sample({**row, "metadata": json.dumps({"objects": objects}), **changes}, 0)


def answer_of(model: SatLisa, sample: Sample, kind: str, most: int = 512) -> str:
    config = replace(model.config, instance_places=kind, max_seq_length=most, max_image_tokens=4)
    encoded = encode_sample(sample, model.processor, model.segmenter.inputs, config)
    assert len(encoded.seg_places) == len(encoded.mask_targets) == len(sample.regions)
    return str(model.processor.tokenizer.decode(encoded.answer_ids))


def test_boxes_in_reading_order_with_labels(tiny_model: SatLisa) -> None:
    sample = read(OBJECTS)
    assert sample.labels == ("", "building", "plane")
    assert answer_of(tiny_model, sample, "box") == (
        "I found 3 objects. object [10, 88, 60, 120] <SEG> building [412, 88, 530, 190] <SEG> "
        "plane [600, 500, 700, 580] <SEG><|im_end|>"
    )
    assert answer_of(tiny_model, sample, "centre") == (
        "I found 3 objects. object (35, 104) <SEG> building (471, 139) <SEG> plane (650, 540) <SEG><|im_end|>"
    )


def test_none_is_the_answer_as_published(tiny_model: SatLisa) -> None:
    sample = read(OBJECTS)
    plain = encode(tiny_model, sample)
    assert tiny_model.config.instance_places == "none" and not plain.places_cut
    assert answer_of(tiny_model, sample, "none") == "I found 3 objects. <SEG> <SEG> <SEG><|im_end|>"
    unnamed = encode(tiny_model, replace(sample, regions=tuple(tuple(region) for region in sample.regions)))
    assert plain.answer_ids.tolist() == unnamed.answer_ids.tolist()


@pytest.mark.parametrize("kind", ["box", "centre"])
def test_masks_and_their_places_agree(tiny_model: SatLisa, kind: str) -> None:
    """What the answer says of each object is read back, and lies where its mask target does."""
    sample = read(OBJECTS)
    text = answer_of(tiny_model, sample, kind)
    assert count_segs(text) == 3
    found = [[int(n) for n in re.findall(r"\d+", part)] for part in re.findall(r"[\[(]([^\])]*)", text)]
    targets = encode(tiny_model, sample).mask_targets
    for place, target in zip(found, targets, strict=True):
        rows, columns = (target > 0.4).nonzero(as_tuple=True)
        sides = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        drawn = np.array([float(side) / len(target) * 1000 for side in sides])
        if kind == "centre":
            drawn = (drawn[:2] + drawn[2:]) / 2
        assert np.abs(drawn - place).max() < 1000 / len(target)


def test_what_does_not_fit_says_less(tiny_model: SatLisa) -> None:
    sample = read(OBJECTS)
    texts, lengths = {}, {}
    for kind in ("box", "centre", "none"):
        texts[kind] = answer_of(tiny_model, sample, kind)
        lengths[kind] = encode(_with(tiny_model, kind), sample).length
    assert lengths["box"] > lengths["centre"] > lengths["none"]
    assert answer_of(tiny_model, sample, "box", lengths["box"]) == texts["box"]
    assert answer_of(tiny_model, sample, "box", lengths["box"] - 1) == texts["centre"]
    assert answer_of(tiny_model, sample, "box", lengths["centre"] - 1) == texts["none"]
    assert answer_of(tiny_model, sample, "centre", lengths["centre"] - 1) == texts["none"]


def test_rows_that_say_less_are_counted(tiny_model: SatLisa) -> None:
    sample = read(OBJECTS)
    model = _with(tiny_model, "box")
    assert not encode(model, sample).places_cut
    config = replace(model.config, max_seq_length=encode(model, sample).length - 1, max_image_tokens=4)
    cut = encode_sample(sample, model.processor, model.segmenter.inputs, config)
    assert cut.places_cut and not cut.shortened


@pytest.mark.parametrize("kind", ["box", "centre", "none"])
def test_one_mask_and_no_mask_have_no_places(tiny_model: SatLisa, kind: str) -> None:
    assert answer_of(tiny_model, read(OBJECTS[:1], "One."), kind) == "One. <SEG><|im_end|>"
    nothing = read([], "There are none.", task="building_segmentation")
    assert answer_of(tiny_model, nothing, kind) == "There are none.<|im_end|>"
    several = replace(make_samples(2)[1], answer="Here", regions=(box(0.0, 0.0, 0.5, 0.5),))
    assert answer_of(tiny_model, several, kind) == "Here <SEG><|im_end|>"


def test_places_outside_the_image_end_at_its_edge() -> None:
    region = (np.array([[-0.1, 0.25], [1.005, 0.25], [1.005, 0.5]]),)
    assert describe_places([region, LabelledRegion.of(region, "lake")], "box") == [
        "object [0, 250, 1000, 500]",
        "lake [0, 250, 1000, 500]",
    ]


def test_a_label_is_plain_text(tiny_model: SatLisa) -> None:
    """A dataset's label cannot bring a token with a meaning into the answer."""
    sample = read([{"label": "<|im_end|>", "bbox": [0, 0, 500, 500]}, {"label": "a", "bbox": [0, 0, 900, 900]}], "Two.")
    encoded = encode(_with(tiny_model, "box"), sample)
    assert encoded.answer_ids.tolist().count(tiny_model.processor.tokenizer.eos_token_id) == 1


def _with(model: SatLisa, kind: str) -> SatLisa:
    model.config = replace(model.config, instance_places=kind)
    return model
