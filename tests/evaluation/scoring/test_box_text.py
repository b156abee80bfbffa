"""Boxes in the forms that models write, and what is no box."""

import pytest

from satlisa.evaluation.scoring.box_text import Box, BoxList, as_thousandths, normalise_label, read_record, read_text
from tests.helpers.quick import quick

A, B = (10.0, 20.0, 30.0, 40.0), (50.0, 60.0, 70.0, 80.0)


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("building [10, 20, 30, 40]; plane [50, 60, 70, 80]", [("building", A), ("plane", B)]),
        ("building [10,20,30,40], plane [50,60,70,80]", [("building", A), ("plane", B)]),
        ("Building [10 , 20,30,40.0]\nPlane: [5e1,60,70,80]", [("building", A), ("plane", B)]),
        ("building [10,20,30,40] and plane [50,60,70,80].", [("building", A), ("plane", B)]),
        ("1. building: [10,20,30,40]\n2. storage tank - (50, 60, 70, 80)", [("building", A), ("storage tank", B)]),
        ("**Building**: [10,20,30,40]", [("building", A)]),
        ("[10,20,30,40]", [(None, A)]),
        ("[10,20,30,40]; [50,60,70,80]", [(None, A), (None, B)]),
        ("[[10,20,30,40],[50,60,70,80]]", [(None, A), (None, B)]),
        ("buildings:\n- [10,20,30,40]\n- [50,60,70,80]", [("building", A), ("building", B)]),
        ('{"bbox_2d": [10, 20, 30, 40], "label": "Building"}', [("building", A)]),
        ('```json\n[\n\t{"bbox_2d": [10, 20, 30, 40], "label": "x y"}\n]\n```', [("x y", A)]),
        ('[{"class": "x", "box": [10,20,30,40]}, {"category": "y", "bbox": [50,60,70,80]}]', [("x", A), ("y", B)]),
        ('{"objects": [{"name": "x", "bbox": [10,20,30,40]}], "count": 1}', [("x", A)]),
        ('{"label": "x", "bbox": [[10,20,30,40],[50,60,70,80]]}', [("x", A), ("x", B)]),
        ('{"label": ["x", "y"], "bbox": [[10,20,30,40],[50,60,70,80]]}', [("x", A), ("y", B)]),
        ('{"Building": [[10,20,30,40]], "plane": [50,60,70,80]}', [("building", A), ("plane", B)]),
        ("<ref>a ship</ref><box>(10,20),(30,40)</box><box>(50,60),(70,80)</box>", [("ship", A), ("ship", B)]),
        ("<|object_ref_start|>x<|object_ref_end|><|box_start|>(10,20),(30,40)<|box_end|>", [("x", A)]),
        ("x(10,20),(30,40)", [("x", A)]),  # as decoded without special tokens
        ("<ref>x</ref><box>[[10, 20, 30, 40], [50, 60, 70, 80]]</box>", [("x", A), ("x", B)]),
        ("ＳＣＨＩＦＦ  [10,20,30,40]; Größe [50,60,70,80]", [("schiff", A), ("grösse", B)]),
        ("船 [10,20,30,40]", [("船", A)]),
        ("dot [10,20,10,20]", [("dot", (10.0, 20.0, 10.0, 20.0))]),
        ("far [-5, 20, 3000, 40]", [("far", (-5.0, 20.0, 3000.0, 40.0))]),
        ("[10,20,30,40]: building; [50,60,70,80]: road", [("building", A), ("road", B)]),
        ("[10,20,30,40] (building), [50,60,70,80] (Roads)", [("building", A), ("road", B)]),
        ("[10,20,30,40]: building\n[50,60,70,80]: road", [("building", A), ("road", B)]),
        ("building [10,20,30,40] (95%), road [50,60,70,80] (damaged)", [("building", A), ("road", B)]),
        ("building: [10,20,30,40]; [50,60,70,80]: damaged", [("building", A), ("building", B)]),
        ("[10,20,30,40] and [50,60,70,80] are here", [(None, A), (None, B)]),
        ("[10,20,30,40] building, [50,60,70,80] road", [(None, A), (None, B)]),
        ("No planes, but one ship [10,20,30,40]", [("ship", A)]),
        ("The plane is at [10,20,30,40]", [("plane", A)]),
        ("A plane is located at: [10,20,30,40].", [("plane", A)]),
        ("Bounding box of the plane: [10,20,30,40]", [("plane", A)]),
        ("In the image, there is a storage-tank at [10,20,30,40]", [("storage tank", A)]),
        ("I found 2 buildings: [10,20,30,40] and [50,60,70,80]", [("building", A), ("building", B)]),
        ("buildings: [10,20,30,40] and also [50,60,70,80]", [("building", A), ("building", B)]),
        ("I see two planes. The first is at [10,20,30,40], another one at [50,60,70,80]", [("plane", A), ("plane", B)]),
        ("a plane on the apron [10,20,30,40] and 3 cars parked near [50,60,70,80]", [("plane", A), ("car", B)]),
        ("building 1: [10,20,30,40]; building (2): [50,60,70,80]", [("building 1", A), ("building", B)]),
        ("Objects: [10,20,30,40]", [(None, A)]),
        ("The area which was flooded last year by the river [10,20,30,40]", [(None, A)]),
        ("plane [10,20,30,40]; something in the far upper left corner looks odd to me [50,60,70,80]",
         [("plane", A), (None, B)]),
        ('{"bboxes": [[10,20,30,40],[50,60,70,80]], "labels": ["plane", "ships"]}', [("plane", A), ("ship", B)]),
        ('{"bboxes": [[10,20,30,40],[50,60,70,80]], "labels": ["plane"]}', [(None, A), (None, B)]),
        ('{"Label": "Planes", "Bbox": [10,20,30,40]}', [("plane", A)]),
        ('[{"type": "x", "box": [10,20,30,40]}, {"object": "y", "box": [50,60,70,80]}]', [("x", A), ("y", B)]),
        ('[{"class_name": "x", "box": [10,20,30,40]}, {"Category_Name": "y", "box": [50,60,70,80]}]',
         [("x", A), ("y", B)]),
        ('{"bbox": [10,20,30,40], "label": ["x"]}', [("x", A)]),
        ('{"bbox": [10,20,30,40], "class": 3, "name": "x"}', [("x", A)]),
        ('{"bbox": [], "label": []}', []),
        ("None", []),
        ("[]", []),
        ('{"objects": [], "count": 0}', []),
        ("3 buildings (two of them flooded) [sic]", []),
        ("", []),
    ],
)  # fmt: skip
def test_forms(text: str, boxes: list) -> None:
    found = read_text(text)
    assert [(box.label, box.corners) for box in found.boxes] == boxes
    assert found.unparsed == 0


@pytest.mark.parametrize(
    ("text", "boxes", "unparsed"),
    [
        ("a [30,20,10,40]", 0, 1),  # swapped corners
        ("a [10,40,30,20]", 0, 1),
        ("a [10,20,30]; b [10,20,30,40]", 1, 1),
        ("a [10,20,30,40,50]", 0, 1),
        ("a [1,2,3,4,5,6,7,8]", 0, 1),
        ("a [10,20,30,NaN]", 0, 1),
        ("a [10, 20, inf, 40]", 0, 1),
        ("a [-Infinity,20,30,40]", 0, 1),
        ("a [1e999,20,30,40]", 0, 1),
        (f"a [10,20,{'9' * 5000},40]", 0, 1),
        ("a [10, 20, thirty, 40]; b [10,20,30,40]", 1, 1),
        ("a [10, 20, 30; b [10,20,30,40]", 1, 1),
        ("a [10,20,30,40]; b [50, 6", 1, 1),
        ("(10,20)", 0, 1),
        ("<box>(10,20),(30", 0, 1),
        ('{"bbox": [10,20,30,40]', 0, 1),  # its label may have followed
        ('[{"bbox": [10,20,30,40], "label": "a"}, {"bbox": [50,6', 1, 1),
        ('[{"bbox": [10,20,30,40], "label": "a"}', 1, 1),  # the list was not closed
        ("{'bbox': [10,20,30,40]}", 0, 1),
        ('{"bbox": [10,20,30,40], "bbox": [10,20,30,40]}', 0, 1),
        ('{"bbox": null, "label": "a"}', 0, 1),
        ('{"bbox": "left", "label": "a"}', 0, 1),
        ('{"bbox": {"x": 1}, "label": "a"}', 0, 1),
        ('{"bbox": [true, 20, 30, 40]}', 0, 1),
        ('{"x": 1, "y": 2, "w": 3, "h": 4}', 0, 1),
        ("<p>ship</p> {<20><30><50><60>|<90>}", 0, 1),  # GeoChat's rotated boxes
    ],
)
def test_what_is_no_box_is_counted(text: str, boxes: int, unparsed: int) -> None:
    found = read_text(text)
    assert (len(found.boxes), found.unparsed) == (boxes, unparsed)


LONG = [
    "[",
    '{"a":',
    "(1,",
    "[1,2,3,4",
    "a[",
    " ",
    ",",
    "1",
    "]",
    "{",
    "(",
    "()",
    "<",
    "[ ",
    "1,",
    "[1",
    "a ",
    ":",
    "(a",
    "a. ",
]


@pytest.mark.parametrize("part", LONG)
def test_long_nonsense_is_quick(part: str) -> None:
    text = part * (100_000 // len(part)) + "x"
    with quick(2):  # two texts
        assert not read_text(text).boxes
        read_text("[1,2,3,4]" + text)


def test_records() -> None:
    objects = [{"label": "Plane", "bbox": [10, 20, 30, 40], "polygon": [[1, 2], [3, 4], [5, 6]]}]
    wanted = BoxList([Box("plane", A)])
    assert read_record({"objects": objects, "size": [512, 512], "bounds": [0, 0, 9, 9]}) == wanted
    assert read_record(objects) == read_record(objects[0]) == wanted
    assert read_record({"objects": {"label": ["Plane"], "bbox": [[10, 20, 30, 40]]}}) == wanted
    assert read_record({"bboxes": [[10, 20, 30, 40]], "labels": ["plane"], "size": [512, 512]}) == wanted
    assert read_record({"bbox": [0, 0, 9, 9], "Objects": objects}) == wanted  # of the image
    assert read_record({"boxes": [[10, 20, 30, 40]]}) == BoxList([Box(None, A)])
    assert read_record({"objects": [{"label": "x", "bbox": [30, 20, 10, 40]}]}) == BoxList([], 1)
    for nothing in ({}, [], None, "text", 3, {"polygons": [[1, 2, 3, 4, 5, 6]]}, {"objects": ["plane"]}):
        assert read_record(nothing) == BoxList()


def test_fractions() -> None:
    def corners(*rows: tuple) -> list[tuple]:
        return [box.corners for box in as_thousandths([Box(None, row) for row in rows])]

    assert corners((0.1, 0.2, 0.3, 1.0), (0.0, 0.0, 1.0, 1.0)) == [(100, 200, 300, 1000), (0, 0, 1000, 1000)]
    assert corners((0.0, 0.0, 1.0, 1.0)) == [(0, 0, 1, 1)]  # whole numbers are thousandths
    assert corners((0.1, 0.2, 0.3, 0.4), (0.0, 0.0, 2.0, 1.0))[0] == (0.1, 0.2, 0.3, 0.4)
    assert corners() == []


def test_labels() -> None:
    assert normalise_label("  Storage\n TANK ") == "storage tank"
    assert normalise_label(" ") is None
    assert normalise_label("The storage-tanks") == normalise_label("storage_tank") == "storage tank"
    assert normalise_label("a") == "a"
