"""Metadata that is broken or odd, and polygons of all kinds in it."""

import json
import math
from typing import Any

import numpy as np

from tests.helpers.row_cases import ANSWER, QUESTION, SQUARE, Case, Skipped, Usable, case, mask_case

ONE = Usable(1, area=0.25)
TEXT = Usable(0, QUESTION, ANSWER)  # a row of a segmentation task without polygons says so in words
_FLAT = [number for point in SQUARE for number in point]
_KEYED = [{"x": x, "y": y} for x, y in SQUARE]
_WHOLE = [[0, 0], [1000, 0], [1000, 1000], [0, 1000]]


def _skipped(reason: str) -> Skipped:
    return Skipped("metadata", reason)


def _circle(points: int) -> list[list[float]]:
    angles = (2 * math.pi * number / points for number in range(points))
    return [[round(500 + 400 * math.cos(angle), 2), round(500 + 400 * math.sin(angle), 2)] for angle in angles]


def _boxes(count: int, side: int) -> list[list[list[int]]]:
    corners = np.random.default_rng(0).integers(0, 1001 - side, (count, 1, 2))
    boxes: list[list[list[int]]] = (corners + np.array([[0, 0], [side, 0], [side, side], [0, side]])).tolist()
    return boxes


def _zigzag(points: int) -> list[list[int]]:
    return [[1000 * (number % 2), number % 1001] for number in range(points)]


def _deep(value: Any, levels: int) -> Any:
    return _deep([value], levels - 1) if levels else value


_CUT = '{"polygons": [[[100, 100], [600'

# name: (metadata as JSON text, what is expected)
_CELLS: dict[str, tuple[str, Usable | Skipped]] = {
    "no text": ("", TEXT),
    "blanks": (" \n ", TEXT),
    "JSON that is cut": (_CUT, _skipped('is not JSON (starts with \'{"polygons"')),
    "Python instead of JSON": ("{'polygons': None}", _skipped("is not JSON (starts with \"{'polygons'")),
    "nan": ("nan", _skipped("is not JSON (starts with 'nan')")),
    "NaN": ("NaN", _skipped("is not a JSON object: found nan")),
    "10,000 lists deep": ('{"polygons": ' + "[" * 10_000 + "]" * 10_000 + "}", _skipped("is nested more than 32 deep")),
    "500 lists deep": ('{"polygons": ' + "[" * 500 + "]" * 500 + "}", _skipped("is nested more than 32 deep")),
    "500 objects deep": ('{"a":' * 500 + "1" + "}" * 500, _skipped("is nested more than 32 deep")),
    "a number": ("5", _skipped("is not a JSON object: found 5")),
    "a string": ('"forest"', _skipped("is not a JSON object: found 'forest'")),
    "JSON twice": (json.dumps(json.dumps({"polygons": [SQUARE]})), ONE),
    "true": ("true", _skipped("is not a JSON object: found True")),
    "JSON null": ("null", TEXT),
    "an empty list": ("[]", TEXT),
    "polygons twice": ('{"polygons": [[1, 2, 3, 4]], "polygons": []}', _skipped("has the key 'polygons' twice")),
    "a number of 5,000 digits": ('{"polygons": [[' + "1" * 5000 + "]]}", _skipped("4300 digits")),
    "NaN beside polygons": ('{"cloud": NaN, "gsd": Infinity, "polygons": ' + json.dumps([SQUARE]) + "}", ONE),
    "10**400 beside polygons": (json.dumps({"id": 10**400, "polygons": [SQUARE]}), ONE),
    "half a character and NUL beside them": ('{"\\ud800": "\\u0000", "polygons": ' + json.dumps([SQUARE]) + "}", ONE),
    "100 KB of [ as text beside them": (json.dumps({"note": "[" * 100_000, "polygons": [SQUARE]}), ONE),
    "100 KB of [ as polygons": (
        json.dumps({"polygons": "[" * 100_000}),
        _skipped("`polygons`: expected polygons, fou"),
    ),
}

# name: (what stands under `polygons`, what is expected)
_POLYGONS: dict[str, tuple[Any, Usable | Skipped]] = {
    "of no points": ([[]], TEXT),
    "of one point": ([[[500, 500]]], _skipped("holds 1 polygon, none of which covers")),
    "of two points": ([[[100, 100], [900, 900]]], _skipped("holds 1 polygon, none of which covers")),
    "of one point five times": ([[[500, 500]] * 5], _skipped("none of which covers any of the image")),
    "of points on a line": ([[[100, 100], [500, 500], [900, 900]]], _skipped("none of which covers")),
    "of 100,000 points": ([_circle(100_000)], Usable(1, area=math.pi * 0.16)),
    "of 20,000 points that jump across the image": ([_zigzag(20_000)], _skipped("outlines run 20,000 times across")),
    "10,000 of them": (_boxes(10_000, 20), Usable(1)),
    "2,000 of the whole image": ([_WHOLE] * 2000, Usable(1, area=1.0)),
    "10,000 of the whole image": ([_WHOLE] * 10_000, _skipped("outlines run 20,000 times across")),
    "of strings": ([[["100", "100"], ["600", "100"], ["600", "600"]]], _skipped("expected polygons, found [[['100'")),
    "of strings that are no numbers": ([["a", "b", "c", "d"]], _skipped("`polygons`: expected polygons, found [['a'")),
    "of null": ([[[100, None], [600, 100], [600, 600]]], _skipped("found None")),
    "of true": ([[[100, True], [600, 100], [600, 600]]], _skipped("found True")),
    "of NaN": (
        [[[100, math.nan], [600, 100], [600, 600]]],
        _skipped("expected a finite number as coordinate, found n"),
    ),
    "of Infinity": ([[[100, -math.inf], [600, 100], [600, 600]]], _skipped("found -inf")),
    "of 10**400": ([[[100, 10**400], [600, 100], [600, 600]]], _skipped("expected a finite number as coordinate")),
    "of negative numbers": ([[[-400, -400], [500, -400], [500, 500], [-400, 500]]], ONE),
    "of 1e308": (
        [[[-1e308, -1e308], [1e308, -1e308], [1e308, 1e308], [-1e308, 1e308]]],
        _skipped("expected coordinates from 0 to 1000, thousandths of the image's width and height, found 1e+308"),
    ),
    "of -1e9": ([[[-1e9, -1e9], [500, -1e9], [500, 500], [-1e9, 500]]], ONE),
    "of fractions": ([[[x / 1000, y / 1000] for x, y in SQUARE]], ONE),
    "of three numbers a point": (
        [[[x, y, 0] for x, y in SQUARE]],
        _skipped("expected pairs of x and y, found 3 numbers"),
    ),
    "flat": ([_FLAT], ONE),
    "flat and of an odd count": ([[*_FLAT, 7]], _skipped("expected pairs of x and y, found 9 numbers")),
    "of x without y": ([[{"x": 1}, {"x": 2}, {"x": 3}]], _skipped("expected polygons, found [[{'x': 1}")),
    "in all spellings": ([SQUARE, _FLAT, _KEYED, {"polygon": SQUARE}, [[SQUARE]], None, json.dumps(SQUARE)], ONE),
    "of points and numbers": ([[[100, 100], 600, [600, 600]]], _skipped("expected a list of coordinates, found 600")),
    "of points in lists": ([_deep(SQUARE, 20)], ONE),
    "of points in too many lists": ([_deep(SQUARE, 40)], _skipped("is nested more than 32 deep")),
    "that cross themselves": ([[[0, 0], [1000, 1000], [1000, 0], [0, 1000]]], Usable(1, area=0.5)),
    "twice around": ([SQUARE * 2], _skipped("none of which covers any of the image")),
    "outside of the image": ([[[-600, -600], [-100, -600], [-100, -100]]], _skipped("none of which covers")),
    "beyond the image's edge": ([[[1100, 1100], [1600, 1100], [1600, 1600]]], _skipped("found 1600")),
    "partly beyond the image's edge": (
        [[[500, 500], [5000, 500], [5000, 5000], [500, 5000]]],
        _skipped("expected coordinates from 0 to 1000"),
    ),
    "beyond it by rounding": ([[[500, 500], [1004, 500], [1004, 1004], [500, 1004]]], ONE),
    "that are a path": ("M 0 0 L 5 5", _skipped("`polygons`: expected polygons, found 'M 0 0 L 5 5'")),
    "that are run lengths": ({"counts": "abc", "size": [9, 9]}, _skipped("found an object with the keys counts, size")),
    "that are a count": (3, TEXT),
    "that are none": ([], TEXT),
}


def _box(*corners: Any) -> dict[str, Any]:
    return {"objects": [{"label": "house", "bbox": list(corners)}]}


_OTHERS: dict[str, tuple[Any, Usable | Skipped]] = {
    "box": (_box(100, 100, 600, 600), ONE),
    "box reversed": (_box(600, 600, 100, 100), _skipped("expected a box [x0, y0, x1, y1] with x0 <= x1 and y0 <= y1")),
    "box of a width and a height": (_box(500, 500, 100, 100), _skipped("[x, y, width, height] is not read")),
    "box of no area": (_box(100, 100, 100, 600), _skipped("none of which covers any of the image")),
    "box of three numbers": (_box(100, 100, 100), _skipped("`objects`: expected a box [x0, y0, x1, y1]")),
    "box of strings": (_box("100", "100", "600", "600"), _skipped("expected a number as coordinate, found '100'")),
    "box that is null": ({"objects": [{"bbox": None}, {"polygon": SQUARE}]}, ONE),
    "labels": ({"objects": ["house", "road"], "count": 2}, TEXT),
    "polygons under an unknown key": ({"shapes": [SQUARE]}, _skipped("has polygons under `shapes`")),
    "polygons under a key of 100 KB": ({"k" * 100_000: [SQUARE]}, _skipped("has polygons under `kkkk")),
    "polygons under a key with line breaks": ({"a\n\x1b": [SQUARE]}, _skipped(r"has polygons under `a\n\x1b`")),
}

CASES: list[Case] = [
    *(mask_case(f"metadata: {name}", expected, text) for name, (text, expected) in _CELLS.items()),
    *(mask_case(f"polygons: {name}", expected, {"polygons": value}) for name, (value, expected) in _POLYGONS.items()),
    *(mask_case(f"metadata: {name}", expected, value) for name, (value, expected) in _OTHERS.items()),
    case("metadata: null", Usable(0), metadata=None),
    mask_case("instances: 10,000", Usable(32), {"polygons": _boxes(10_000, 20)}, task="instance_segmentation"),
    mask_case(
        "instances: 2,000 of the whole image",
        Usable(32, area=1.0),
        {"polygons": [_WHOLE] * 2000},
        task="instance_segmentation",
    ),
    mask_case(
        "instances: one usable among broken shapes",
        ONE,
        {"polygons": [[], [[5, 5]], SQUARE, [9, 9]]},
        task="instance_segmentation",
    ),
]
