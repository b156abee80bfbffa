"""The numbers that are kept of a sample, by the kind of its answer."""

from typing import Any

import numpy as np
import pytest

from satlisa.data.rows import read_sample
from satlisa.evaluation.entry import Pick, blank, score
from satlisa.evaluation.scoring.instances import encode_masks
from satlisa.inference.generation import Answer
from tests.helpers.made_up_answers import (
    BUILDINGS,
    FLOOD,
    HEIGHT,
    INSTANCES,
    MODEL,
    NO_BUILDINGS,
    SCENE,
    WIDTH,
    columns,
    reply,
    row,
)

KINDS = {"instances", "referring", "boxes", "counts", "caption", "image_key"}


def scored(question: Any, answer: Answer | str, **changes: Any) -> tuple[dict[str, Any], Any]:
    sample = read_sample(row(*question) | changes, 5, max_instances=99)
    return score(Pick(0, 5, question[0], True), sample, answer, MODEL.config, ())


def kinds(question: Any, answer: Answer | str, **changes: Any) -> set[str]:
    return KINDS & set(scored(question, answer, **changes)[0])


def test_each_answer_has_the_numbers_of_its_kind_alone() -> None:
    assert kinds(SCENE, reply("Forest")) == kinds(FLOOD, reply("No")) == set()
    assert (
        kinds(BUILDINGS, reply("<SEG>", columns(0, 9)))
        == kinds(NO_BUILDINGS, reply("None."))
        == {
            "referring",
            "instances",  # the task's rows together tell which applies
        }
    )
    assert kinds(INSTANCES, reply("<SEG>", columns(0, 4))) == {"instances"}
    assert kinds(("instance_segmentation", "Detect all", "There is none.", None), reply("None.")) == {"instances"}
    assert kinds(("image_captioning", "Describe it", "Two planes.", None), reply("A plane.")) == {
        "caption",
        "image_key",
        "counts",
    }
    assert kinds(("object_detection", "What is there?", "Two planes", None), reply("One plane")) == {"counts"}
    assert kinds(("object_detection", "List the boxes", "plane [1, 2, 30, 40]", None), reply("?")) == {"boxes"}
    assert kinds(INSTANCES, "out of memory") == set()


def test_boxes_of_the_metadata_are_expected_where_the_answer_names_none() -> None:
    metadata = '{"objects": [{"label": "plane", "bbox": [100, 100, 300, 300]}]}'
    question = ("object_detection", "Give the bounding boxes", "See the list.", None)
    entry, _ = scored(question, reply("plane [100, 100, 300, 290]"), metadata=metadata)
    assert (entry["boxes"]["expected"], entry["boxes"]["matched"]) == (1, 1)


def test_a_question_about_boxes_is_one_also_where_it_is_answered_with_yes() -> None:
    prompt = "Can you give the bounding boxes of all planes?"
    question = ("visual_question_answering", prompt, "Yes, plane [100, 100, 300, 300].", None)
    entry, _ = scored(question, reply("Yes, plane [600, 600, 700, 700]."))
    assert entry["correct"] is True and (entry["boxes"]["expected"], entry["boxes"]["matched"]) == (1, 0)


def test_objects_are_matched_one_by_one_and_a_missing_seg_misses_all() -> None:
    entry, pictures = scored(INSTANCES, reply("<SEG> <SEG>", columns(8, 12), columns(9, 12)))
    measured = entry["instances"]
    assert measured["truth_areas"] == [80, 80, 80, 80] and measured["areas"] == [80, 60]
    assert (measured["pairs"], measured["overlapping_pairs"]) == (1, 1)
    assert pictures[3].pairs == [(0, 1)] and len(pictures[3].truths) == 4
    silent, _ = scored(INSTANCES, reply("I see four."))
    assert silent["instances"]["areas"] == [] and silent["iou"] == 0.0


def test_encoded_masks_and_masks_are_the_same() -> None:
    masks = [columns(0, 4), columns(8, 12)]
    union = np.any(masks, axis=0)[None]
    encoded = Answer("<SEG> <SEG>", union, np.ones(2, dtype=np.float32), [], tuple(encode_masks(masks)))
    assert scored(INSTANCES, encoded)[0] == scored(INSTANCES, reply("<SEG> <SEG>", *masks))[0]


def test_captions_of_one_image_share_its_key() -> None:
    question = ("image_captioning", "Describe it", "Two planes.", None)
    first, second = (scored(question, reply(text))[0] for text in ("A plane.", "Two planes."))
    assert first["image_key"] == second["image_key"]
    other = scored(question, reply("A plane."), image=row(*SCENE)["image"] | {"bytes": _white()})[0]
    assert other["image_key"] != first["image_key"]


def _white() -> bytes:
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), "white").save(stream, "PNG")
    return stream.getvalue()


def test_an_error_has_no_scores() -> None:
    entry, pictures = scored(BUILDINGS, "out of memory")
    assert entry["error"] == "out of memory" and pictures is None
    assert (entry["iou"], entry["output"]) == (None, None)
    assert blank(Pick(1, 2, "t", False))["error"] is None


def test_scores_of_the_answer_and_of_sam_must_agree() -> None:
    broken = Answer("<SEG>", np.stack([columns(0, 4)] * 2), np.ones(1, dtype=np.float32), [])
    with pytest.raises(ValueError, match="expected a score per mask, found 1 scores of 2 masks"):
        scored(INSTANCES, broken)
