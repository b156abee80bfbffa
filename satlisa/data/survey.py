"""What a split's rows are taken for, before a run spends hours on them: counts by kind, and units that look wrong.

Some rows are read, without decoding an image, and the headers of a few images.
"""

import io
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
from PIL import Image

from satlisa.data.coordinates import Reading
from satlisa.data.dataset import COLUMNS
from satlisa.data.dataset_paths import REFUSED
from satlisa.data.rows import BARE, MASKS, NEGATIVE, TEXT, read_text
from satlisa.data.sample import RowError, Turn, answer_places
from satlisa.data.sampler import IndexedSampler, RowRef, Sampler
from satlisa.errors import first_line
from satlisa.geometry.regions import Region

_MOST_ROWS = 1000  # of a table, whose texts are read without its images
_MOST_STREAMED = 64  # rows of a stream, which are read with their images
_MOST_IMAGES = 32
_MOST_TASKS = 12
_LOOKS = {"pixels": "in no row do they exceed the image's width and height", "percents": "none exceeds 100"}
_BY_CHANCE = 0.01  # a probability below which thousandths would not be this small by chance


@dataclass
class Survey:
    """What the rows that were read are.

    Attributes:
        kinds: rows by `RowText.kind`.
        answers: supervised answers of the rows with several.
        errors: rows that cannot be used, of which `first_error` is the first.
        conversations: of the text rows that were read, each up to its last answer.
        instances: turns and regions of the rows that were read and have several regions with a mask of their own.
        fractions: the dataset's coordinates are fractions of the image; applies where a row alone does not tell.
        units: "pixels" or "percents" where the coordinates look like these; "" otherwise.
        below_zero: rows with coordinates left of or above the image by more than rounding.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    answers: list[int] = field(default_factory=list)
    errors: int = 0
    first_error: str = ""
    conversations: list[tuple[Turn, ...]] = field(default_factory=list, repr=False)
    instances: list[tuple[tuple[Turn, ...], list[Region]]] = field(default_factory=list, repr=False)
    fractions: bool = False
    units: str = ""
    below_zero: int = 0

    def line(self) -> str:
        """The counts in one line: "of 600 rows looked at: 320 mask rows, 280 text rows"."""
        num_read = sum(self.kinds.values()) + self.errors
        counts = [f"{self.kinds[kind]:,} {kind}" for kind in (MASKS, TEXT, NEGATIVE, BARE) if self.kinds[kind]]
        if self.errors:
            counts.append(f"{self.errors:,} that cannot be used")
        several = ""
        if self.answers:
            several = f"; {len(self.answers):,} have several answers, {sum(self.answers):,} in all, each supervised"
        return f"of {num_read:,} rows looked at: {', '.join(counts) or 'nothing'}{several}"

    def warnings(self) -> list[str]:
        """What somebody should look at before the run goes on."""
        found = []
        if self.errors:
            found.append(f"{self.errors:,} of the rows looked at cannot be used; the first: {self.first_error}")
        if self.kinds[BARE]:
            found.append(
                f"{self.kinds[BARE]:,} rows of segmentation tasks have neither masks nor a word that there are none "
                "(`polygons: []`); they are trained as text"
            )
        if self.units:
            found.append(
                f"the coordinates look like {self.units}: {_LOOKS[self.units]}. They are read as thousandths of the "
                "image's width and height; convert them if they are not"
            )
        if self.below_zero:
            found.append(
                f"{self.below_zero:,} rows have coordinates below 0, left of or above the image; they are clipped. "
                "Is 0 its upper left corner in your data?"
            )
        return found


def survey(sampler: Sampler, seg_tasks: Collection[str] = ()) -> Survey:
    """Read some rows of a split, always the same ones."""
    found = Survey()
    marks: list[tuple[np.ndarray, tuple[int, int]]] = []
    near: Counter[str] = Counter()
    for number, (ref, row) in enumerate(_probe(sampler)):
        how, size = Reading(decode=False), None
        try:
            if isinstance(row, Exception):
                raise RowError(ref.index, "image", f"cannot be read from its file ({first_line(row)})")
            size = _size(ref) if number < _MOST_IMAGES else None
            text = read_text(row, ref.index, seg_tasks, how)
            found.kinds[text.kind] += 1
            if not text.regions:
                found.conversations.append(text.turns)
            if text.instances and len(text.regions) > 1:
                found.instances.append((text.turns, text.regions))
            if (count := len(answer_places(text.turns))) > 1:
                found.answers.append(count)
        except RowError as error:
            found.errors += 1
            found.first_error = found.first_error or str(error)
        numbers = np.concatenate([np.empty((0, 2)), *how.numbers])
        if len(numbers):
            near[_unit(numbers)] += 1
            found.below_zero += int(numbers.min() < (-10 if _unit(numbers) == "thousandths" else -0.01))
            if _unit(numbers) == "thousandths":
                marks.append((numbers.max(axis=0), size or (0, 0)))
    found.fractions = near["fractions"] > near["thousandths"] or (near[""] > 0 and not near["thousandths"])
    found.units = _suspect(marks)
    return found


def describe_tasks(tasks: Collection[str]) -> str:
    """The tasks of rows, the most frequent first: "captions 20, flood 3"."""
    counted = Counter(tasks).most_common()
    shown = ", ".join(f"{_shown(task)} {count:,}" for task, count in counted[:_MOST_TASKS])
    return shown + (f", and {len(counted) - _MOST_TASKS} more tasks" if len(counted) > _MOST_TASKS else "")


def _shown(task: str) -> str:
    return task if task.isprintable() and len(task) <= 60 else repr(task[:60])


def _probe(sampler: Sampler) -> Iterator[tuple[RowRef, Any]]:
    """Rows and their cells; those of tables without the image, which is not drawn or read from the disk."""
    texts = _without_images(sampler.source) if isinstance(sampler, IndexedSampler) else None
    for ref in sampler.probe(_MOST_STREAMED if texts is None else _MOST_ROWS):
        try:
            yield ref, ref.fetch() if texts is None else texts[ref.index]
        except Exception as error:  # damaged files: their readers raise anything
            yield ref, error


def _without_images(source: Any) -> Any:
    """Rows by number, without the column `image` where they are held in columns."""
    if isinstance(source, datasets.Dataset):
        return source.select_columns([name for name in source.column_names if name != "image"])
    try:
        columns = {name: source[name] for name in COLUMNS if name != "image"}
    except TypeError:  # a list of rows
        return source
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def _size(ref: RowRef) -> tuple[int, int] | None:
    """(width, height) by the header of a row's image; None: another form of image.

    Raises:
        RowError: an image that cannot be opened.
    """
    index = ref.index
    try:
        cell = ref.fetch().get("image")
    except Exception as error:  # damaged files
        raise RowError(index, "image", f"cannot be read from its file ({first_line(error)})") from error
    if isinstance(cell, Mapping) and cell.get(REFUSED):
        raise RowError(index, "image", str(cell[REFUSED]))
    if isinstance(cell, Mapping):
        data, cell = cell.get("bytes"), cell.get("path")
        cell = io.BytesIO(data) if isinstance(data, bytes) else cell
    if not isinstance(cell, str | io.BytesIO):
        return None
    try:
        with Image.open(cell) as opened:
            size: tuple[int, int] = opened.size
            return size
    except FileNotFoundError as error:
        raise RowError(index, "image", "cannot be read: no such file; check the path") from error
    except Exception:  # a format that Pillow alone does not read
        return None


def _unit(numbers: np.ndarray) -> str:
    """The unit that a row's coordinates have for sure, or "" for whole numbers that may be fractions too."""
    if np.all((numbers >= -1) & (numbers <= 2)):
        return "fractions" if np.any(numbers % 1) else ""
    return "thousandths"


def _suspect(marks: list[tuple[np.ndarray, tuple[int, int]]]) -> str:
    """The unit that coordinates look like, by their largest x and y in each row, in an image of (width, height)."""
    for unit, sides in (("percents", [(100, 100)] * len(marks)), ("pixels", [size for _, size in marks])):
        rows = [(top, side) for (top, _), side in zip(marks, sides, strict=True) if min(side) > 0]
        if not rows or not all((top <= side).all() for top, side in rows):
            continue
        chance = 1.0  # that thousandths anywhere in the image all lie below
        for top, side in rows:
            chance *= 0.0 if top.max() > 1010 else float(np.prod(np.minimum(np.array(side) / 1000, 1)))
        if chance < _BY_CHANCE:
            return unit
    return ""
