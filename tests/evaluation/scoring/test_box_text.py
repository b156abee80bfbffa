"""Boxes in the forms that models write, and what is no box."""

import time

import pytest

from satlisa.evaluation.scoring.box_text import Box, BoxList, as_thousandths, normalise_label, read_record, read_text

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
        ("buildings:\n- [10,20,30,40]\n- [50,60,70,80]", [("buildings", A), ("buildings", B)]),
        ('{"bbox_2d": [10, 20, 30, 40], "label": "Building"}', [("building", A)]),
        ('```json\n[\n\t{"bbox_2d": [10, 20, 30, 40], "label": "a b"}\n]\n```', [("a b", A)]),
        ('[{"class": "x", "box": [10,20,30,40]}, {"category": "y", "bbox": [50,60,70,80]}]', [("x", A), ("y", B)]),
        ('{"objects": [{"name": "x", "bbox": [10,20,30,40]}], "count": 1}', [("x", A)]),
        ('{"label": "x", "bbox": [[10,20,30,40],[50,60,70,80]]}', [("x", A), ("x", B)]),
        ('{"label": ["x", "y"], "bbox": [[10,20,30,40],[50,60,70,80]]}', [("x", A), ("y", B)]),
        ('{"Building": [[10,20,30,40]], "plane": [50,60,70,80]}', [("building", A), ("plane", B)]),
        ("<ref>a ship</ref><box>(10,20),(30,40)</box><box>(50,60),(70,80)</box>", [("a ship", A), ("a ship", B)]),
        ("<|object_ref_start|>x<|object_ref_end|><|box_start|>(10,20),(30,40)<|box_end|>", [("x", A)]),
        ("x(10,20),(30,40)", [("x", A)]),  # as decoded without special tokens
        ("<ref>x</ref><box>[[10, 20, 30, 40], [50, 60, 70, 80]]</box>", [("x", A), ("x", B)]),
        ("ＳＣＨＩＦＦ  [10,20,30,40]; Größe [50,60,70,80]", [("schiff", A), ("grösse", B)]),
        ("船 [10,20,30,40]", [("船", A)]),
        ("dot [10,20,10,20]", [("dot", (10.0, 20.0, 10.0, 20.0))]),
        ("far [-5, 20, 3000, 40]", [("far", (-5.0, 20.0, 3000.0, 40.0))]),
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


@pytest.mark.parametrize("text", ["[" * 1000, '{"a":' * 1000 + "1", "(1," * 50_000, "[1,2,3,4" * 20_000, "a[" * 50_000])
def test_long_nonsense_is_quick(text: str) -> None:
    started = time.perf_counter()
    assert not read_text(text).boxes
    assert time.perf_counter() - started < 1


def test_records() -> None:
    objects = [{"label": "Plane", "bbox": [10, 20, 30, 40], "polygon": [[1, 2], [3, 4], [5, 6]]}]
    wanted = BoxList([Box("plane", A)])
    assert read_record({"objects": objects, "size": [512, 512], "bounds": [0, 0, 9, 9]}) == wanted
    assert read_record(objects) == read_record(objects[0]) == wanted
    assert read_record({"objects": {"label": ["Plane"], "bbox": [[10, 20, 30, 40]]}}) == wanted
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
