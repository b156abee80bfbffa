"""Where the masks of a row are, what says that it has none, and that nothing that may be masks goes unread."""

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from satlisa.data.polygons import Reading
from satlisa.data.rows import BARE, MASKS, NEGATIVE, read_sample, read_text
from satlisa.data.sample import RowError
from satlisa.geometry.raster import covered_pixels
from tests.helpers.dataset_fixtures import make_row

MASK = np.zeros((48, 64), dtype=np.uint8)
MASK[10:30, 10:40] = 255  # 600 pixels
RUNS = {"size": [48, 64], "counts": [490] + [20, 28] * 29 + [20, 1170]}  # the same, down the columns
POLYGON = [[100, 100], [600, 100], [600, 700]]


def encode(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    return stream.getvalue()


TEXT = base64.b64encode(encode(MASK)).decode()


def pixels(row: dict[str, Any]) -> list[int]:
    regions = list(read_sample(row, 0).regions)
    return [int(count) for count in covered_pixels(regions, 48, 64)]


@pytest.mark.parametrize(
    "metadata",
    [
        RUNS,
        {"rle": RUNS},
        {"segmentation": RUNS, "area": 600},
        {"masks": [RUNS, RUNS]},
        {"annotations": [{"segmentation": RUNS, "bbox": [10, 10, 30, 20], "category_id": 1}]},
        {"objects": [{"label": "house", "segmentation": RUNS}]},
        {"mask": TEXT},
        {"label": f"data:image/png;base64,{TEXT}"},
        {"segmentation_mask": {"bytes": TEXT, "path": None}},
        {"masks": [TEXT]},
        {"mask": {"bytes": encode(MASK), "path": None}},
    ],
)
def test_masks_in_metadata(metadata: Any) -> None:
    assert pixels(make_row(metadata=metadata)) == [600]


@pytest.mark.parametrize(
    "columns",
    [
        {"mask": {"bytes": encode(MASK), "path": None}},
        {"label": {"bytes": encode(MASK // 255), "path": None}},
        {"segmentation_mask": Image.fromarray(MASK)},
        {"mask": {"bytes": encode(MASK[::2, ::2]), "path": None}},  # at half the image's size
        {"rle": json.dumps(RUNS)},
        {"annotations": [{"segmentation": RUNS}]},
    ],
)
def test_masks_in_columns_of_their_own(columns: dict[str, Any]) -> None:
    assert pixels(make_row(metadata="{}", **columns)) == [600]


def test_a_mask_column_may_be_a_label() -> None:
    assert read_text(make_row(metadata="{}", label=3, mask=None), 0, (), Reading()).kind == BARE
    assert read_text(make_row(metadata="{}", label="house"), 0, (), Reading()).kind == BARE


def test_an_image_of_instances() -> None:
    values = MASK // 255
    values[40:44, 40:44] = 2
    row = make_row("instance_segmentation", metadata="{}", mask={"bytes": encode(values), "path": None})
    assert pixels(row) == [600, 16]
    with pytest.raises(RowError, match="`mask` is a mask image of 2 values besides 0"):
        read_sample({**row, "task": "building_segmentation"}, 0)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"mask": {"bytes": encode(MASK[:, :48]), "path": None}}, r"`mask` expected a mask of the image's shape"),
        ({"mask": {"bytes": b"hello", "path": None}}, "`mask` is not an image"),
        ({"mask": {"bytes": None, "path": "/nowhere/m.png"}}, "`mask` is a mask image that cannot be read"),
        ({"ground_truth": {"bytes": encode(MASK), "path": None}}, "`ground_truth` holds an image, and masks are read"),
        ({"metadata": {"rle": {**RUNS, "size": [64, 48]}}}, r"`rle`: expected a mask of the image's shape"),
    ],
)
def test_masks_that_do_not_fit(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(RowError, match=message):
        read_sample(make_row(**{"metadata": "{}", **columns}), 0)


@pytest.mark.parametrize(
    "metadata",
    [
        {"wkt": "POLYGON((1 1, 5 5, 9 9))"},
        {"geometry": "POLYGON((1 1, 5 5, 9 9))"},
        {"objects": ["POLYGON((1 1, 5 5, 9 9))"]},
        {"objects": [{"wkt": "POLYGON((1 1, 5 5, 9 9))"}]},
        {"regions": [{"shape_attributes": {"all_points_x": [1, 5, 9], "all_points_y": [1, 9, 9]}}]},
        {"objects": [{"xmin": 100, "ymin": 100, "xmax": 600, "ymax": 600}]},
        {"objects": [{"label": "house"}]},
        {"annotations": [{"bbox": [100, 100, 600, 600]}]},
        {"bbox": [100, 100, 600, 600]},
        {"rle": "10 5 20 5"},
        {"mask": "mask.png"},
        {"mask_path": "mask.png"},
        {"labels": ["0 0.5 0.5 0.2 0.2"]},
        {"shape_of_the_house": 5},
        {"info": {"polys": [[100, 100, 600, 100, 600, 700]]}},
        {"info": [{"wkt": "x"}]},
        {"notes": "100,100 600,100 600,700 100,700"},
        {"notes": "[[100, 100], [600, 100], [600, 700]]"},
        {"description": "MULTIPOLYGON (((1 1, 5 5, 9 9, 1 1)))"},
        {"caption": [[100, 100], [600, 100], [600, 700]]},
    ],
)
def test_what_is_not_read_is_refused(metadata: Any) -> None:
    with pytest.raises(RowError, match="row 7: `metadata` ") as caught:
        read_sample(make_row(metadata=metadata), 7)
    assert next(iter(metadata)) in str(caught.value)


@pytest.mark.parametrize(
    "column",
    [
        {"bbox": [100, 100, 600, 600]},
        {"boxes": "[[100, 100, 600, 600]]"},
        {"rle": "10 5 20 5"},
        {"segmentation_rle": "PPYo0"},
        {"wkt": "POLYGON((1 1, 5 5, 9 9, 1 1))"},
        {"where": "POLYGON((1 1, 5 5, 9 9, 1 1))"},
        {"mask_path": "masks/1.png"},
        {"mask": "1.unknown"},
        {"corners": [[100, 100], [600, 100], [600, 700]]},
        {"shape": {"attributes": {"all_points_x": [1, 5, 9], "all_points_y": [1, 9, 9]}}},
        {"outlines": '{"a": [[100, 100], [600, 100], [600, 700]]}'},
    ],
)
def test_a_column_that_is_not_read_is_refused(column: dict[str, Any]) -> None:
    with pytest.raises(RowError, match=f"row 7: `{next(iter(column))}` .*not read as masks"):
        read_sample(make_row(metadata="", **column), 7)
    assert read_sample(make_row(**column), 7).regions or "mask" in column  # masks of the metadata are there


def test_columns_about_the_image_are_no_masks() -> None:
    about = {"box_count": 3, "mask": None, "boxes": [], "segmentation_type": "semantic", "embedding": [0.1] * 8}
    about |= {"uuid": "5e-1", "label": "urban", "objects": ["house"], "place": "12.5, 55.1", "bbox": {}}
    metadata = {
        "notes": "Seen in 2018, 3 houses of 12 by 14 m",
        "size": [48, 64],
        "info": {"contributor": "a", "year": 1},
    }
    assert read_text(make_row(metadata=metadata, **about), 0, (), Reading()).kind == BARE


def test_well_known_text_in_an_answer_is_refused() -> None:
    for metadata in ("", {"polygons": [POLYGON]}):
        with pytest.raises(RowError, match="polygons as well-known text in turn 1; expected them as JSON"):
            read_sample(make_row(answer="POLYGON ((1 1, 5 5, 9 9, 1 1))", metadata=metadata), 0)


@pytest.mark.parametrize(
    "answer",
    [
        "building: (100,100) (500,100) (500,500) (100,100)",
        "<poly>100,100 500,100 500,500</poly>",
        "Here: <loc_100><loc_100><loc_500><loc_500>",
        "<p100><p200><p300><p400>",
        "100 100, 500 100, 500 500, 100 500",
    ],
)
def test_coordinates_that_are_no_json_are_refused(answer: str) -> None:
    for metadata in ("", {"polygons": [POLYGON]}):
        with pytest.raises(RowError, match="polygons as text in turn 1; expected them as JSON"):
            read_sample(make_row(answer=answer, metadata=metadata), 0)
    assert read_sample(make_row("captioning", answer=answer, metadata=""), 0).answer == answer


@pytest.mark.parametrize(
    "answer",
    ["In 2018, 3 houses of 12 by 14 m", "1, 2 and 3 storeys", "I see 4, 5, or 6 (7) ponds", "Built <SEG> in 1990"],
)
def test_numbers_in_an_answer_are_no_coordinates(answer: str) -> None:
    assert read_sample(make_row(answer=answer), 0).regions


@pytest.mark.parametrize("values", [1, 255, True])
@pytest.mark.parametrize("column", ["mask", "masks", "segmentation", "label"])
def test_a_mask_of_rows_of_numbers_is_a_mask(column: str, values: Any) -> None:
    mask = np.where(MASK > 0, values, 0)
    mask = mask.astype(bool) if values is True else mask
    for cell in (mask, mask.tolist()):
        assert pixels(make_row(metadata="", **{column: cell})) == [600]
        assert pixels(make_row(metadata={"mask": mask.tolist()})) == [600]
    with pytest.raises(RowError, match="expected a mask of the image's shape"):
        read_sample(make_row(metadata="", mask=mask[:, :50].tolist()), 0)


def test_lists_of_masks_and_lists_of_polygons_are_told_apart() -> None:
    halves = [np.roll(MASK, shift, axis=1) for shift in (0, 20)]
    for cells in ([half.tolist() for half in halves], [Image.fromarray(half) for half in halves]):
        row = make_row("instance_segmentation", metadata="", masks=cells)
        assert sorted(pixels(row)) == [600, 600]
    octagons = [[x + d for d in (0, 0, 9, 0, 18, 9, 18, 18)] for x in range(100, 180, 8)]  # flat, as many as long
    assert len(read_sample(make_row("instance_segmentation", metadata={"polygons": octagons}), 0).regions) == 10


@pytest.mark.parametrize("box", [{"area": 5000}, {"iscrowd": 0}])
def test_boxes_of_coco_are_refused_where_they_happen_to_be_ordered(box: dict[str, Any]) -> None:
    metadata = {"objects": [{"bbox": [10, 20, 50, 100], **box}]}  # 50 wide, 100 high
    with pytest.raises(RowError, match=f"beside COCO's `{next(iter(box))}`, where boxes are \\[x, y, width, height"):
        read_sample(make_row(metadata=metadata), 0)
    assert read_sample(make_row(metadata={"objects": [{"bbox": [10, 20, 60, 120], "area": 5000}]}), 0).regions


@pytest.mark.parametrize(
    "marker", ["<mask>", "[MASK]", "<mask_0>", "<|mask|>", "<seg_token>", "</SEG>", "<SEGMENTATION>"]
)
def test_other_markers_beside_geometry_are_refused(marker: str) -> None:
    for task in ("building_segmentation", "captioning"):
        with pytest.raises(RowError, match=r"has the marker .* in an answer; write <SEG> where a mask belongs"):
            read_sample(make_row(task, f"Here it is: {marker}."), 0)
    plain = read_sample(make_row("captioning", f"Here it is: {marker}.", metadata=""), 0)
    assert (plain.answer, plain.regions) == (f"Here it is: {marker}.", ())


def test_polygons_of_two_units_in_one_row_are_refused() -> None:
    mixed = {"polygons": [POLYGON, [[0.1, 0.1], [0.5, 0.1], [0.5, 0.5]]]}
    with pytest.raises(RowError, match=r"expected coordinates of one unit, found .*0.1, 0.1.* among thousandths"):
        read_sample(make_row("instance_segmentation", metadata=mixed), 0)


def test_coordinates_in_the_answer_do_without_metadata() -> None:
    assert len(read_sample(make_row(answer=f"Here: {POLYGON}", metadata={"unknown": 5}), 0).regions) == 1


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (make_row(), MASKS),
        *(
            (make_row(answer="There are none.", metadata=metadata), NEGATIVE)
            for metadata in (
                {"polygons": [[]]},
                {"objects": []},
                {"objects": [{"label": "house", "polygon": []}]},
                {"masks": [[], []], "width": 64},
                {"annotations": []},
                {"type": "FeatureCollection", "features": []},
                {"rle": {"size": [48, 64], "counts": [3072]}},
                {"size": [48, 64], "counts": [3072]},
                {"annotations": [{"segmentation": {"size": [48, 64], "counts": [3072]}}]},
            )
        ),
        (make_row(answer="[]", metadata="{}"), NEGATIVE),
        (make_row(answer="null", metadata="{}"), NEGATIVE),
        (make_row(answer="None.", metadata="{}", mask={"bytes": encode(MASK * 0), "path": None}), NEGATIVE),
        (make_row(metadata={"image_id": 5, "width": 64, "height": 48, "date": "2020-01-01 10:00"}), BARE),
        (make_row(metadata=""), BARE),
    ],
)
def test_kinds(row: dict[str, Any], kind: str) -> None:
    assert read_text(row, 0, (), Reading()).kind == kind
    assert len(read_sample(row, 0).regions) == (kind == MASKS)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("[]", "There is nothing to segment."),
        ("null", "There is nothing to segment."),
        ('{"polygons": []}', "There is nothing to segment."),
        ('```json\n{"objects": [[]]}\n```', "There is nothing to segment."),
        ('No buildings: {"polygons": []}', "No buildings"),
        ("There are [3] ponds.", "There are [3] ponds."),
    ],
)
def test_an_answer_of_empty_json_gets_words(answer: str, expected: str) -> None:
    assert read_sample(make_row(answer=answer, metadata="{}"), 0).answer == expected
    plain = make_row("object_detection", answer=answer, metadata="{}")
    assert read_sample(plain, 0).answer == answer  # of a text row it is the answer
