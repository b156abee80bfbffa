"""Labels of objects."""

import json

import pytest

from satlisa.data.labels import label_in
from satlisa.data.polygons import find_regions
from satlisa.geometry.regions import label_of

SQUARE = [[100, 100], [200, 100], [200, 200], [100, 200]]


@pytest.mark.parametrize(
    ("record", "label"),
    [
        ({"label": "building"}, "building"),
        ({"category": "small\n plane "}, "small plane"),
        ({"class": "road", "name": "A9"}, "road"),
        ({"name": "tank [3] <SEG>"}, "tank 3 SEG"),
        ({"properties": {"class": "ship"}}, "ship"),
        ({"label": 3}, ""),
        ({"class": "3"}, ""),
        ({"label": None, "category": " "}, ""),
        ({"name": "x" * 41}, ""),
        ([1, 2], ""),
    ],
)
def test_labels_are_short_words(record, label):
    assert label_in(record) == label


@pytest.mark.parametrize(
    "outline", [{"polygon": SQUARE}, {"bbox": [100, 100, 200, 200]}, {"points": [0, 0, 9, 0, 9, 9]}]
)
@pytest.mark.parametrize("key", ["objects", "instances", "polygons"])
def test_objects_keep_their_labels(key, outline):
    regions = find_regions({key: [{"label": "plane", **outline}, outline, {"category": "road", **outline}]})
    assert [label_of(region) for region in regions] == ["plane", "", "road"]


def test_lists_of_columns_and_polygons_alone():
    regions = find_regions({"objects": {"label": ["a", "b"], "bbox": [[0, 0, 10, 10], [5, 5, 9, 9]]}})
    assert [label_of(region) for region in regions] == ["a", "b"]
    assert [label_of(region) for region in find_regions(json.loads(json.dumps({"polygons": [SQUARE]})))] == [""]
