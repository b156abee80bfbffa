"""Every spelling of a row as a sample."""

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from satlisa.data.dataset import COLUMNS
from satlisa.data.rows import read_sample
from satlisa.data.sample import RowError
from satlisa.errors import SatlisaError
from satlisa.geometry.raster import rasterize
from tests.helpers.dataset_fixtures import SQUARE, make_row, png, square

SQUARE_FRACTIONS = [[0.1, 0.1], [0.2, 0.1], [0.2, 0.2], [0.1, 0.2]]


def tops(sample: Any) -> list[tuple[float, float]]:
    """The (y, x) corner of each region."""
    return [tuple(np.concatenate(region).min(axis=0)[::-1].tolist()) for region in sample.regions]  # type: ignore[misc]


def test_a_semantic_row_has_one_region() -> None:
    sample = read_sample(make_row(), 7)
    assert (sample.index, sample.task, sample.source) == (7, "building_segmentation", "test")
    assert [(turn.role, turn.text) for turn in sample.turns] == [("user", "Segment")]
    assert (sample.answer, sample.left_out) == ("Two buildings.", 0)
    assert (sample.image.mode, sample.image.size) == ("RGB", (64, 48))
    assert len(sample.regions) == 1 and len(sample.regions[0]) == 2
    assert sample.regions[0][0].tolist() == SQUARE_FRACTIONS


def test_an_instance_row_has_a_region_per_object() -> None:
    objects = [
        {"label": "late", "polygon": square(10, 800, 50)},
        {"label": "right", "polygon": square(600, 100, 50)},
        {"label": "two parts", "segmentation": [square(300, 700, 30), square(300, 100, 30)]},
        {"label": "boxed", "bbox": [0, 300, 90, 390]},
    ]
    sample = read_sample(make_row("instance_segmentation", metadata={"objects": objects}), 0)
    assert tops(sample) == [(0.1, 0.3), (0.1, 0.6), (0.3, 0.0), (0.8, 0.01)]
    assert [len(region) for region in sample.regions] == [2, 1, 1, 1]


def test_the_largest_instances_are_kept_in_reading_order() -> None:
    sides = [30, 90, 10, 60, 80]
    polygons = [square(100 * number, 900 - 150 * number, side) for number, side in enumerate(sides)]
    row = make_row("instance_segmentation", metadata=json.dumps({"polygons": polygons}))
    sample = read_sample(row, 0, max_instances=3)
    assert tops(sample) == [(0.3, 0.4), (0.45, 0.3), (0.75, 0.1)]
    assert sample.left_out == 2
    assert (len(read_sample(row, 0).regions), read_sample(row, 0).left_out) == (5, 0)


def test_instances_that_draw_nothing_are_counted() -> None:
    polygons = [[500, 500], [[5, 5], [9, 9]], SQUARE, square(-3000, 10, 50), []]
    sample = read_sample(make_row("instance_segmentation", metadata={"polygons": polygons}), 0)
    assert (tops(sample), sample.left_out) == ([(0.1, 0.1)], 4)
    with pytest.raises(RowError, match="row 3: `metadata` holds 1 polygon, none of which covers any of the image"):
        read_sample(make_row(metadata={"polygons": [[[5, 5], [9, 9]]]}), 3)


def test_the_task_decides_what_polygons_mean() -> None:
    flood = make_row("flood_assessment", answer="Yes, <SEG> at [1, 2, 3, 4].")
    plain = read_sample(make_row("flood_assessment", answer="Yes, at [1, 2, 3, 4]."), 0)
    assert (plain.regions, plain.answer) == ((), "Yes, at [1, 2, 3, 4].")  # a text answer stays as it is
    assert len(read_sample(flood, 0).regions) == 1  # `<SEG>` and polygons make a mask row of any task
    named = read_sample(flood, 0, seg_tasks=["Flood_Assessment"])
    assert (len(named.regions), named.answer) == (1, "Yes, at.")
    caption = read_sample(make_row("image_captioning", metadata='{"objects": [{"label": "x"}]}'), 0)
    assert caption.regions == ()


@pytest.mark.parametrize("metadata", ["", "  ", None, "{}", "null", '{"polygons": []}', '{"objects": ["tree"]}'])
def test_a_segmentation_task_without_polygons_is_text(metadata: Any) -> None:
    sample = read_sample(make_row(answer="No buildings.", metadata=metadata), 0)
    assert (sample.regions, sample.answer) == ((), "No buildings.")


P3 = [[100, 100], [600, 100], [600, 700]]


@pytest.mark.parametrize(
    ("metadata", "answer", "message"),
    [
        ({"shapes": [P3]}, "Here.", "polygons under `shapes`"),
        ({"objects": {"a": {"outline": P3}}}, "Here.", r"polygons under `objects\.a\.outline`"),
        ({"annotation": [{"label": "x", "rings": [P3]}]}, "Here.", "polygons under `annotation"),
        ({}, "Here is <SEG>.", "<SEG> in its answer"),
        ({}, "It is at [(100,100),(600,100),(600,700)].", "JSON that cannot be read"),
    ],
)
def test_a_mask_sample_never_becomes_text_silently(metadata: Any, answer: str, message: str) -> None:
    with pytest.raises(RowError, match=message):
        read_sample(make_row(answer=answer, metadata=metadata), 0)


@pytest.mark.parametrize(
    "metadata",
    [
        {"objects": [None, {"polygon": P3}]},
        {"polygons": [P3, None]},
        {"polygons": json.dumps([P3])},
        {"objects": [2], "polygons": [P3]},
        {"instances": 3, "masks": [None, [None, *P3]]},
    ],
)
def test_nulls_counts_and_nested_json_cost_no_row(metadata: Any) -> None:
    (region,) = read_sample(make_row("instance_segmentation", metadata=json.dumps(metadata)), 0).regions
    assert [ring.tolist() for ring in region] == [[[0.1, 0.1], [0.6, 0.1], [0.6, 0.7]]]


def test_polygons_in_the_answer() -> None:
    answer = f"Found: {json.dumps([SQUARE, square(0, 0, 50)])}."
    sample = read_sample(make_row("instance_segmentation", answer, metadata=""), 0)
    assert (tops(sample), sample.answer) == ([(0.0, 0.0), (0.1, 0.1)], "Found.")
    both = read_sample(make_row(answer=answer, metadata={"masks": [square(700, 700, 50)]}), 0)
    assert (tops(both), both.answer) == ([(0.7, 0.7)], "Found.")  # the metadata goes first


def test_an_answer_of_coordinates_alone_gets_words() -> None:
    answer = json.dumps({"polygons": [SQUARE, square(500, 500, 100)]})
    assert read_sample(make_row(answer=answer, metadata=""), 0).answer == "Here is the mask."
    assert read_sample(make_row("instance_segmentation", answer, metadata=""), 0).answer == "Here are the masks."
    assert read_sample(make_row(answer=""), 0).answer == "Here is the mask."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metadata": "nan"}, r"row 812: `metadata` is not JSON \(starts with 'nan'\)"),
        ({"metadata": "NaN"}, "row 812: `metadata` is not a JSON object: found nan"),
        ({"metadata": float("nan")}, "row 812: `metadata` is not a JSON object: found nan"),
        ({"metadata": '{"polygons": [[1, 2, NaN, 4]]}'}, "`metadata` `polygons`: expected a finite number"),
        ({"metadata": {"polygons": "none"}}, "`metadata` `polygons`: expected polygons, found 'none'"),
        ({"metadata": {"rings": [SQUARE]}}, "`metadata` has polygons under `rings`, expected them under one of polyg"),
        ({"conversations": "[{"}, r"`conversations` is not JSON \(starts with '\[\{'\)"),
        ({"conversations": "[]"}, "`conversations` has no question with an answer"),
        ({"task": None}, "`task` is not a task's name: found None"),
        ({"image": None}, "`image` cannot be read: "),
        ({"image": {"bytes": None, "path": None}}, "`image` cannot be read: "),
        ({"image": {"bytes": png()[:60], "path": None}}, "`image` cannot be read: "),
        ({"image": {"bytes": b"hello", "path": None}}, "`image` cannot be read: "),
        ({"image": {"bytes": None, "path": "/nowhere/a.png"}}, "`image` cannot be read: .*/nowhere/a.png"),
    ],
)
def test_what_cannot_be_read_names_row_and_column(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RowError, match=message) as caught:
        read_sample(make_row(**changes), 812)
    assert caught.value.index == 812
    assert caught.value.column in COLUMNS
    assert isinstance(caught.value, SatlisaError) and isinstance(caught.value, ValueError)


def test_a_text_row_needs_an_answer() -> None:
    with pytest.raises(RowError, match="`conversations` has an empty answer"):
        read_sample(make_row("image_captioning", answer=" "), 0)


def chat(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]


def test_masks_go_to_the_answer_that_they_belong_to() -> None:
    row = make_row(conversations=chat("Segment the buildings", "Here they are.", "How many?", "Two."))
    sample = read_sample(row, 0)
    assert ([turn.text for turn in sample.turns], sample.answer) == (["Segment the buildings"], "Here they are.")
    assert [turn.text for turn in sample.later] == ["How many?", "Two."] and len(sample.regions) == 1
    row = make_row(conversations=chat("How many?", "Two.", "Mark them", f"{json.dumps([SQUARE])} <SEG>."), metadata="")
    sample = read_sample(row, 0)
    assert [turn.text for turn in sample.turns] == ["How many?", "Two.", "Mark them"]
    assert (sample.answer, len(sample.regions), sample.later) == ("Here is the mask.", 1, ())


def test_coordinates_leave_every_answer_of_a_mask_row() -> None:
    row = make_row(
        conversations=chat("Where?", f"At {SQUARE}.", "Show it", "Here: <SEG>", "Its box?", "[100, 100, 200, 200]")
    )
    sample = read_sample(row, 0)
    assert [turn.text for turn in sample.turns] == ["Where?", "At.", "Show it"]
    assert (sample.answer, sample.later[-1].text) == ("Here", "[100, 100, 200, 200]")  # a box answers its question


def test_masks_of_no_certain_answer_are_refused() -> None:
    row = make_row(conversations=chat("Segment the roofs", "Here.", "Segment the roads", "Here."))
    with pytest.raises(RowError, match="`conversations` has questions for masks before 2 answers"):
        read_sample(row, 0)


BOXES = json.dumps({"objects": [{"bbox": [100, 100, 500, 500]}]})


@pytest.mark.parametrize("first", ["Detect them", "Segment them"])
def test_boxes_of_another_answer_do_not_draw_the_masks_of_the_metadata(first: str) -> None:
    answers = {"Detect them": BOXES, "Segment them": "Sure."}
    turns = [
        text for question in sorted(answers, reverse=first != "Detect them") for text in (question, answers[question])
    ]
    sample = read_sample(make_row(conversations=chat(*turns)), 0)
    assert (sample.turns[-1].text, sample.answer) == ("Segment them", "Sure.")
    assert BOXES in [turn.text for turn in (*sample.turns, *sample.later)]


def test_masks_in_a_turn_that_is_no_answer_are_refused() -> None:
    for text, metadata in ((json.dumps({"polygons": [SQUARE]}), ""), ("<SEG>", None)):
        turns = [*chat("Segment it", "Working"), {"role": "assistant", "content": text}, *chat("Thanks", "Welcome")]
        for end in (3, 5):
            changes = {"conversations": turns[:end]} | ({} if metadata is None else {"metadata": metadata})
            with pytest.raises(RowError, match="`conversations` has masks in turn 2, an answer that does not follow"):
                read_sample(make_row(**changes), 0)


@pytest.mark.parametrize("marker", ["<SEG>", "[SEG]", "<seg>", "<SEG1>", "<SEG_0>", "<|SEG|>", "[SEG0]"])
def test_a_marker_and_polygons_make_a_mask_row_of_any_task(marker: str) -> None:
    sample = read_sample(make_row("reason_seg", f"Sure, it is {marker}."), 0)
    assert (len(sample.regions), sample.answer) == (1, "Sure, it is.")
    two = read_sample(make_row("reason_seg", f"{marker} and {marker}"), 0)
    assert (len(two.regions), two.answer) == (2, "Here are the masks.")
    with pytest.raises(RowError, match="has 3 <SEG> in its answer for 2 polygons"):
        read_sample(make_row("reason_seg", marker * 3), 0)
    for task in ("reason_seg", "captioning"):
        with pytest.raises(RowError, match="has <SEG> in its answer, and the row has no polygons"):
            read_sample(make_row(task, marker, metadata=""), 0)


def test_the_markers_of_instances_are_as_many_as_the_polygons() -> None:
    three = {"polygons": [SQUARE, square(600, 600, 50), square(700, 700, 50)]}
    for task in ("instance_segmentation", "building_segmentation"):
        with pytest.raises(RowError, match="has 2 <SEG> in its answer for 3 polygons"):
            read_sample(make_row(task, "<SEG> and <SEG>", metadata=three), 0)
        assert len(read_sample(make_row(task, "<SEG>, <SEG> and <SEG>", metadata=three), 0).regions) == 3
    assert len(read_sample(make_row("building_segmentation", "<SEG>", metadata=three), 0).regions) == 1


@pytest.mark.parametrize(("task", "is_one"), [("reason_seg", True), ("SEG", True), ("segment", True), ("segue", False)])
def test_a_task_is_of_masks_by_a_word_of_its_name(task: str, is_one: bool) -> None:
    answer = json.dumps({"polygons": [SQUARE]})
    sample = read_sample(make_row(task, answer, metadata=""), 0)
    assert (len(sample.regions), sample.answer) == ((1, "Here is the mask.") if is_one else (0, answer))


@pytest.mark.parametrize("highest", [1011, 1024, 3600])
def test_coordinates_beyond_the_edge_are_refused(highest: int) -> None:
    with pytest.raises(
        RowError, match=f"`metadata` `polygons`: expected coordinates from 0 to 1000, .* found {highest}"
    ):
        read_sample(make_row(metadata={"polygons": [[[0, 0], [500, 0], [500, highest]]]}), 0)


def test_lists_of_columns_are_read() -> None:
    """As `datasets` stores a sequence of objects."""
    metadata = {"objects": {"label": ["a", "b"], "polygon": [square(100, 100, 50), square(600, 600, 50)]}}
    assert len(read_sample(make_row("instance_segmentation", metadata=metadata), 0).regions) == 2
    boxes = {"objects": {"bbox": [[100, 100, 200, 200], [300, 300, 400, 400]], "category": [1, 2]}}
    assert len(read_sample(make_row("instance_segmentation", metadata=boxes), 0).regions) == 2
    one = {"objects": {"bbox": [100, 100, 200, 200]}}
    assert len(read_sample(make_row("instance_segmentation", metadata=one), 0).regions) == 1


def test_a_second_image_column_is_refused() -> None:
    for name in ("image2", "image_after", "images", "before", "t2", "nir", "sar"):
        with pytest.raises(RowError, match=f"`{name}` holds a second image"):
            read_sample(make_row(**{name: {"bytes": png(), "path": None}}), 0)
    assert read_sample(make_row(image2=None, image_id=5, images="no"), 0).regions


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(64, 64), (64, 32)])
def test_a_mask_of_the_stored_image_is_turned_with_it(orientation: int, size: tuple[int, int]) -> None:
    """A mask laid over the file fits it; the model sees both upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    pixels[2:10, 4:40] = 255
    photo, mask = io.BytesIO(), io.BytesIO()
    Image.fromarray(pixels).save(photo, "PNG", exif=exif)
    Image.fromarray(pixels[..., 0]).save(mask, "PNG")
    row = make_row(image={"bytes": photo.getvalue(), "path": None}, mask={"bytes": mask.getvalue(), "path": None})
    sample = read_sample(row | {"metadata": ""}, 0)
    seen = np.asarray(sample.image)[..., 0] > 0
    assert np.array_equal(rasterize(list(sample.regions[0]), *seen.shape), seen)
