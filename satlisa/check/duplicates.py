"""Pictures that are in two splits: the model is scored on what it has seen."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from satlisa.check.facts import THUMB, Facts

_ALIKE = 0.98  # correlation of two thumbnails from which on the pictures are compared
_FLAT = 3.0  # grey levels: a thumbnail that varies less, as of water, is like any other
_SIDE = 64  # at which pictures are compared
_LARGEST_STEP = 3.0  # mean difference in grey levels of one picture stored twice (JPEG, another size)
_LEAST_LIKENESS = 0.97  # correlation of these pictures
_MOST_PAIRS = 2000  # pictures that are compared
_BLOCK = 4096


@dataclass(frozen=True)
class Duplicate:
    """A picture in two splits.

    Attributes:
        one, other: a row of each split.
        is_equal: byte by byte; otherwise stored anew, at another size or quality.
    """

    one: Facts
    other: Facts
    is_equal: bool


def find_duplicates(
    facts: Sequence[Facts], split_of: Callable[[Facts], str], open_row: Callable[[Facts], Image.Image]
) -> list[Duplicate]:
    """The pictures of training rows that are in other splits too, one pair of rows for each picture there.

    Args:
        split_of: the name of a row's split.
        open_row: its picture.
    """
    pictures: dict[tuple[bool, str], Facts] = {}  # the first row of each picture, in training and elsewhere
    for one in sorted((one for one in facts if one.key), key=lambda one: (one.part, one.index)):
        pictures.setdefault((split_of(one) == "train", one.key), one)
    seen = {key: one for (is_train, key), one in pictures.items() if is_train}
    others = {key: one for (is_train, key), one in pictures.items() if not is_train}
    equal = [Duplicate(seen[key], one, True) for key, one in others.items() if key in seen]
    rest = [one for key, one in others.items() if key not in seen]
    found = {}
    for one, other in _alike(list(seen.values()), rest):
        if other.key not in found and _is_same(open_row(one), open_row(other)):
            found[other.key] = Duplicate(one, other, False)
    return [*equal, *found.values()]


def _alike(seen: Sequence[Facts], others: Sequence[Facts]) -> Iterator[tuple[Facts, Facts]]:
    """Pairs whose thumbnails look alike, the most similar first."""
    one, is_flat = _vectors(seen)
    two, is_flat_too = _vectors(others)
    pairs: dict[float, list[tuple[int, int]]] = defaultdict(list)
    for start in range(0, len(one), _BLOCK):
        likeness = one[start : start + _BLOCK] @ two.T
        likeness[is_flat[start : start + _BLOCK]] = 0
        likeness[:, is_flat_too] = 0
        for row, column in zip(*np.nonzero(likeness > _ALIKE), strict=True):
            pairs[float(likeness[row, column])].append((start + int(row), int(column)))
    ordered = [pair for likeness in sorted(pairs, reverse=True) for pair in pairs[likeness]]
    return ((seen[row], others[column]) for row, column in ordered[:_MOST_PAIRS])


def _vectors(facts: Sequence[Facts]) -> tuple[np.ndarray, np.ndarray]:
    """Thumbnails as unit vectors (N, THUMB²), and which of them are flat (N,)."""
    pixels = np.frombuffer(b"".join(one.thumb for one in facts), dtype=np.uint8).reshape(-1, THUMB * THUMB)
    centred = pixels.astype(np.float32) - pixels.mean(axis=1, keepdims=True, dtype=np.float32)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    return centred / np.maximum(lengths, 1), lengths[:, 0] / THUMB < _FLAT


def _is_same(one: Image.Image, other: Image.Image) -> bool:
    """Whether two pictures differ by no more than by how they are stored."""
    shapes = one.width / one.height, other.width / other.height
    if abs(shapes[0] / shapes[1] - 1) > 0.02:
        return False
    first, second = (
        np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), dtype=np.float32).ravel()
        for image in (one, other)
    )
    likeness = np.corrcoef(first, second)[0, 1]
    return bool(np.abs(first - second).mean() < _LARGEST_STEP and likeness > _LEAST_LIKENESS)
