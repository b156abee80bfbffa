"""Each fault that labels have in practice is found, by name and with row numbers; rows without one give no line."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from satlisa.check.problems import claims_masks, template
from tests.helpers.checking import Row, planted, problems_of, rows_of, stored_turned, with_polygons

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("own_cache")]


def with_answer(row: Row, answer: str) -> Row:
    turns = json.loads(row["conversations"])
    turns[-1]["content"] = answer
    return {**row, "conversations": json.dumps(turns)}


def with_boxes(row: Row, change: object) -> Row:
    """A row whose boxes, in the answer and the metadata, are others."""
    metadata = json.loads(row["metadata"])
    if "bbox" not in row["metadata"]:
        return row
    for item in metadata["objects"]:
        item["bbox"] = change(*item["bbox"])  # type: ignore[operator]
    answer = "; ".join(f"{item['label']} {item['bbox']}" for item in metadata["objects"])
    return with_answer({**row, "metadata": json.dumps(metadata)}, answer)


def test_clean_rows_are_silent(tmp_path: Path) -> None:
    assert problems_of(tmp_path) == []
    assert "No problem found" in (tmp_path / "check" / "CHECK.md").read_text()


@pytest.mark.parametrize(
    ("expected", "change"),
    [
        ("look like pixels", lambda x, y: (x * 0.256, y * 0.256)),
        ("look like percents", lambda x, y: (x / 10, y / 10)),
        ("x and y were swapped", lambda x, y: (y, x)),
        ("counted from the lower edge", lambda x, y: (x, 1000 - y)),
    ],
)
def test_coordinates_that_were_meant_otherwise(expected: str, change: object, tmp_path: Path) -> None:
    found = problems_of(tmp_path, planted(lambda row: with_polygons(row, change)))  # type: ignore[arg-type]
    assert [line for line in found if expected in line and line.startswith("train split")], found
    assert all(expected in line for line in found), found


def test_one_source_that_is_swapped(tmp_path: Path) -> None:
    rows = rows_of("segmentation")
    for number in range(0, len(rows), 2):
        rows[number] = with_polygons({**rows[number], "source": "other"}, lambda x, y: (y, x))
    found = problems_of(tmp_path, {"train": rows})
    assert len(found) == 1 and "x and y were swapped" in found[0]
    assert f": {len(rows[::2])} rows have outlines" in found[0]


def test_one_swapped_row(tmp_path: Path) -> None:
    rows = rows_of("segmentation")
    place = max(range(len(rows)), key=lambda number: len(rows[number]["metadata"]))
    rows[place] = with_polygons(rows[place], lambda x, y: (y, x))
    found = problems_of(tmp_path, {"train": rows})
    assert len(found) == 1 and "x and y were swapped" in found[0] and f"(row {place})" in found[0]


def test_boxes_as_width_and_height(tmp_path: Path) -> None:
    found = problems_of(tmp_path, planted(lambda row: with_boxes(row, lambda a, b, c, d: [a, b, c - a, d - b]), "det"))
    assert any("train split" in line and "[x, y, width, height]" in line for line in found), found


def test_an_image_that_exif_turns_and_its_masks_do_not(tmp_path: Path) -> None:
    rows, place = rows_of("segmentation")[:12], 3
    # EXIF 3 turns by 180°; the polygons stay those of the picture before it was stored the other way up
    turned = stored_turned(rows[place], 3, Image.Transpose.ROTATE_180)
    drawn_upright = problems_of(tmp_path / "upright", {"train": [*rows[:place], turned, *rows[place + 1 :]]})
    assert drawn_upright == []
    rows[place] = with_polygons(turned, lambda x, y: (1000 - x, 1000 - y))
    found = problems_of(tmp_path / "stored", {"train": rows})
    assert len(found) == 1 and "EXIF turns" in found[0] and f"(row {place})" in found[0], found


def test_masks_without_a_pixel(tmp_path: Path) -> None:
    rows = rows_of("segmentation")
    rows[0] = with_polygons(rows[0], lambda x, y: (500, 500))
    rows[1] = {**rows[1], "metadata": '{"polygons": []}'}
    rows[2] = {**rows[2], "metadata": "{}"}
    found = "\n".join(problems_of(tmp_path, {"train": rows}))
    assert "1 row has masks that are empty (row 0)" in found
    assert "has no masks and an answer that speaks of some" in found and "(row 1)" in found
    assert "neither masks nor a word" in found and "(row 2)" in found


def test_images_in_two_splits(tmp_path: Path) -> None:
    train, validation = rows_of("flood")[:8], rows_of("flood", "validation")
    buffer = io.BytesIO()
    Image.open(io.BytesIO(train[3]["image"]["bytes"])).convert("RGB").resize((200, 200)).save(
        buffer, "JPEG", quality=80
    )
    validation[0] = {**validation[0], "image": train[0]["image"]}
    validation[1] = {**validation[1], "image": {"bytes": buffer.getvalue(), "path": None}}
    lines = [line for line in problems_of(tmp_path, {"train": train, "validation": validation}) if "scores" in line]
    assert len(lines) == 2
    assert "byte by byte" in lines[0] and "0 = 0" in lines[0]
    assert "stored anew" in lines[1] and "= 1)" in lines[1]


def test_one_answer_and_long_answers(tmp_path: Path) -> None:
    rows = [
        with_answer(row, "Forest") if "class" in row["task"] else row
        for row in (*rows_of("classification"), *rows_of("caption"))
    ]
    place = len(rows) - 1
    rows[place] = with_answer(rows[place], "a long answer of many words " * 120)
    found = "\n".join(problems_of(tmp_path, {"train": rows}))
    assert "task scene_classification: 100.0 % of the 24 answers are 'Forest'" in found
    assert "1 row is longer than max_seq_length 512" in found and f"(row {place})" in found


def test_more_skips_than_allowed(tmp_path: Path) -> None:
    rows = [{**row, "conversations": "[]"} if number < 9 else row for number, row in enumerate(rows_of("flood"))]
    found = problems_of(tmp_path, {"train": rows})
    assert len(found) == 1 and "9 of " in found[0] and "more than MAX_SKIP (0.05)" in found[0]
    again = problems_of(tmp_path / "again", {"train": rows}, MAX_SKIP="0.5")
    assert again == []


def test_outlines_that_are_read_as_text(tmp_path: Path) -> None:
    def renamed(row: Row) -> Row:
        return {**row, "task": "buildings"}

    found = problems_of(tmp_path, planted(renamed, "building_seg"))
    assert any("put buildings into SEG_TASKS" in line for line in found), found
    assert problems_of(tmp_path / "named", planted(renamed, "building_seg"), SEG_TASKS="buildings") == []


def test_names_with_digits_are_no_counts() -> None:
    assert not claims_masks("There are no roofs of type 2.") and not claims_masks("B52s cannot be seen here.")
    assert claims_masks("I found 3 B52s.") and not claims_masks("0 buildings")


def test_templates_keep_nothing_apart_from_something() -> None:
    assert template("I see 12 buildings.") == template("i see 3 buildings") != template("I see 0 buildings.")
