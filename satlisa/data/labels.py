"""What the objects of a row are called."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

_KEYS = ("label", "category", "class", "name")
_LONGEST = 40  # characters; longer text is a description
_BRACKETS = re.compile(r"[\[\](){}<>]+")  # they stand for places and masks in answers


def label_in(record: Any) -> str:
    """The label of an object: text under the first of `_KEYS` that holds some, also in a GeoJSON feature's
    `properties`.

    Runs of blanks, line breaks and brackets become one space. Returns "" where there is none, and for numbers (ids of
    classes that only their dataset can name) and texts of more than `_LONGEST` characters.
    """
    found: Iterator[Any] = (record[key] for key in _KEYS if key in record) if isinstance(record, Mapping) else iter(())
    for text in found:
        label = " ".join(_BRACKETS.sub(" ", text).split()) if isinstance(text, str) else ""
        if 0 < len(label) <= _LONGEST and not label.replace(".", "").isdigit():
            return label
    return label_in(record["properties"]) if isinstance(record, Mapping) and "properties" in record else ""
