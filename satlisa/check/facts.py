"""One row → what a check knows about it, read as training reads it; runs in the worker processes."""

import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from satlisa.check.alignment import BOX, OUTLINE, TURNS, Comparison, compare, draw_outlines, edge_ranks
from satlisa.check.parts import Part
from satlisa.config import ModelConfig
from satlisa.data.conversations import asks_for_masks
from satlisa.data.coordinates import Reading
from satlisa.data.image_cells import unpack
from satlisa.data.images import fingerprint, open_oriented
from satlisa.data.polygons import find_outline
from satlisa.data.rows import MASKS, TEXT, is_mask_task, read_sample, read_text
from satlisa.data.sample import RowError, Sample, Turn, answer_places
from satlisa.errors import SatlisaError, first_line
from satlisa.geometry.raster import covered_pixels
from satlisa.geometry.regions import Region
from satlisa.processing.chat import image_grid
from satlisa.processing.processor import fit_text

THUMB = 16  # side in pixels of the thumbnails that are compared
_AREA_SIDE = 1024  # longest side at which areas are measured; SAM's mask frame has a pixel for 4 × 4 of these
_LONGEST = 200  # characters of an answer that are kept
_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_BOX = re.compile(rf"[\[(]{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}[\])]")
_ORIENTATION = 0x0112  # EXIF's tag
SCALES, SIZED = ("pixels", "percents"), "[x, y, width, height]"


@dataclass(frozen=True)
class Facts:
    """What a check keeps of a row: about half a kilobyte.

    Attributes:
        part, index: where the row is.
        task, source: its columns.
        kind: `RowText.kind`; "" for a row that cannot be used, and for one whose picture alone is compared.
        column, reason: why it cannot be used.
        question, answer: what is asked last, and the beginning of the answer.
        tokens: of the conversation, before anything is cut; is_cut: it is longer than `max_seq_length`.
        answers: supervised answers of the row.
        masks, left_out: masks of the answer, and instances without one.
        empty: masks that cover no pixel; tiny: those smaller than a pixel of SAM's mask frame.
        share: of the image that all masks cover together.
        labels: what the dataset calls the objects.
        size: (width, height) of the upright picture; orientation: EXIF's.
        boxes: boxes as the answer writes them, or else the metadata; (N, 4).
        top: the largest x and y of masks or boxes, in thousandths; None without.
        looks: how outlines would lie on edges, were they meant in another way (`TURNS`, `SCALES`, `SIZED`).
        key: hash of the picture; thumb: (THUMB, THUMB) grey levels.
        unread: where outlines lie that a text row does not use, though masks are asked for.
    """

    part: int
    index: int
    task: str = ""
    source: str = ""
    kind: str = ""
    column: str = ""
    reason: str = ""
    question: str = ""
    answer: str = ""
    tokens: int = 0
    is_cut: bool = False
    answers: int = 0
    masks: int = 0
    left_out: int = 0
    empty: int = 0
    tiny: int = 0
    share: float = 0.0
    labels: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)
    orientation: int = 1
    boxes: tuple[tuple[float, ...], ...] = ()
    top: tuple[float, float] | None = None
    looks: Mapping[str, Comparison] | None = None
    key: str = ""
    thumb: bytes = b""
    unread: str = ""


@dataclass(frozen=True)
class RowReader:
    """Rows to `Facts`; never raises.

    Attributes:
        parts: of the rows, by number.
        processor: the VLM's, its image size limited and `<SEG>` added.
        seg_tasks: further tasks with masks.
    """

    parts: Sequence[Part]
    processor: Any
    config: ModelConfig
    seg_tasks: Collection[str] = ()

    def __call__(self, place: tuple[int, int, Any]) -> Facts:
        """The facts of row (part, index, cells); cells None: they are read here."""
        number, index, cells = place
        torch.set_num_threads(1)
        task = source = ""
        try:
            part = self.parts[number]
            cells = part.rows.row(index).fetch() if cells is None else cells
            task, source = (str(cells.get(name) or "") for name in ("task", "source"))
            if not part.is_read:
                image = open_oriented(unpack(cells.get("image"))).rgb
                return Facts(number, index, task, source, **_picture(image, unpack(cells.get("image"))))
            return self._read(number, index, cells, part)
        except RowError as error:
            return Facts(number, index, task, source, column=error.column, reason=error.reason)
        except Exception as error:  # damaged files make readers raise anything
            reason = f"cannot be read ({type(error).__name__}: {first_line(error)})"
            return Facts(number, index, task, source, column="image", reason=reason)

    def _read(self, number: int, index: int, cells: Mapping[str, Any], part: Part) -> Facts:
        most, tasks = self.config.max_instances, self.seg_tasks
        sample = read_sample(cells, index, max_instances=most, seg_tasks=tasks, fractions=part.fractions)
        tokens, is_cut = self._length(sample)
        orientation = _orientation(sample.image_source)
        boxes = () if sample.regions else boxes_of(sample.answer, sample.metadata)
        return Facts(
            number,
            index,
            sample.task,
            sample.source,
            _kind(sample, cells, tasks, Reading(size=sample.image.size, orientation=orientation)),
            question=sample.turns[-1].text[:_LONGEST],
            answer=sample.answer[:_LONGEST],
            tokens=tokens,
            is_cut=is_cut,
            answers=len(answer_places((*sample.turns, Turn("assistant", sample.answer), *sample.later))),
            boxes=boxes,
            size=sample.image.size,
            orientation=orientation,
            unread=_unread(sample),
            **_masks(sample, most),
            **_picture(sample.image, sample.image_source),
            **_looks(sample, boxes),
        )

    def _length(self, sample: Sample) -> tuple[int, bool]:
        """Tokens of the whole conversation, and whether it is cut."""
        try:
            grid = image_grid(self.processor, sample.image.size)
        except SatlisaError as error:
            raise RowError(sample.index, "image", str(error)) from error
        image = torch.empty(0), grid
        text, is_cut, _ = fit_text(sample, image, self.processor, self.config)
        if is_cut:
            endless = replace(self.config, max_seq_length=2**20)
            text = fit_text(sample, image, self.processor, endless)[0]
        return text.length, is_cut


def boxes_of(answer: str, metadata: Any = None) -> tuple[tuple[float, ...], ...]:
    """Boxes [a, b, c, d] in an answer, else in the metadata: as written, fractions in thousandths."""
    found = [tuple(map(float, match)) for match in _BOX.findall(answer)] or _boxes_under(metadata)
    are_fractions = any(number % 1 for box in found for number in box) and max(map(max, found)) <= 1
    return tuple(tuple(number * 1000 for number in box) for box in found) if are_fractions else tuple(found)


def _boxes_under(value: Any) -> list[tuple[float, ...]]:
    if isinstance(value, list | tuple):
        return [box for item in value for box in _boxes_under(item)]
    if not isinstance(value, Mapping):
        return []
    own = [value.get(name) for name in ("bbox", "box")]
    boxes = [tuple(map(float, box)) for box in own if isinstance(box, list) and len(box) == 4 and all(map(_real, box))]
    return boxes + [box for item in value.values() for box in _boxes_under(item)]


def _real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kind(sample: Sample, cells: Mapping[str, Any], tasks: Collection[str], how: Reading) -> str:
    if sample.regions:
        return MASKS
    return read_text(cells, sample.index, tasks, how).kind if is_mask_task(sample.task, tasks) else TEXT


def _unread(sample: Sample) -> str:
    if sample.regions or not asks_for_masks(sample.turns[-1].text):
        return ""
    return find_outline(sample.metadata) or ""


def _masks(sample: Sample, most: int) -> dict[str, Any]:
    """Sizes of the masks."""
    if not sample.regions:
        return {}
    scale = _AREA_SIDE / max(sample.image.size)
    width, height = (max(1, round(side * scale)) for side in sample.image.size)
    together = tuple(ring for region in sample.regions for ring in region)
    areas = covered_pixels([together, *(sample.regions if len(sample.regions) > 1 else ())], height, width)
    own = areas[1:] if len(areas) > 1 else areas
    return {
        "masks": len(sample.regions),
        "left_out": sample.left_out,
        "empty": sample.left_out if len(sample.regions) < most else 0,
        "tiny": int((own < 16).sum()),
        "share": float(areas[0] / (width * height)),
        "labels": sample.labels,
    }


def _picture(image: Image.Image, source: Any) -> dict[str, Any]:
    """What tells a picture from others."""
    thumb = image.convert("L").resize((THUMB, THUMB), Image.Resampling.BILINEAR)
    return {"key": fingerprint(image, source), "thumb": thumb.tobytes()}


def _looks(sample: Sample, boxes: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Where outlines, or else boxes, lie on the picture's edges, and where they would."""
    regions = list(sample.regions) or [_rectangle(*box) for box in boxes]
    points = [ring for region in regions for ring in region if len(ring) > 2]
    if not points:
        return {}
    top = np.concatenate(points).max(axis=0) * 1000
    ranks, read = edge_ranks(sample.image), draw_outlines(regions)
    correlated = BOX if all(map(_is_box, points)) else OUTLINE
    looks = {name: compare(ranks, read, undo(read), correlated) for name, undo in TURNS.items()}
    for name, sides in zip(SCALES, (sample.image.size, (100, 100)), strict=True):
        if top[0] <= sides[0] and top[1] <= sides[1] and min(sides) < 1000:
            looks[name] = compare(ranks, read, draw_outlines(regions, (1000 / sides[0], 1000 / sides[1])))
    if (meant := _sized(sample.regions, boxes)) is not None:
        looks[SIZED] = compare(ranks, read, draw_outlines(meant))
    return {"top": (float(top[0]), float(top[1])), "looks": looks}


def _sized(regions: Sequence[Region], boxes: Sequence[Sequence[float]]) -> list[Region] | None:
    """Boxes as if they were x, y, width, height; None where not all are boxes, or these would leave the image."""
    if regions:
        rings = [ring for region in regions for ring in region]
        if not all(_is_box(ring) for ring in rings):
            return None
        boxes = [(*ring[0] * 1000, *ring[2] * 1000) for ring in rings]
    meant = [(x, y, x + width, y + height) for x, y, width, height in boxes]
    return [_rectangle(*box) for box in meant] if max(max(box) for box in meant) <= 1010 else None


def _is_box(ring: np.ndarray) -> bool:
    """Whether a polygon is what `bbox` gives."""
    return len(ring) == 4 and bool(
        ring[0, 1] == ring[1, 1] and ring[1, 0] == ring[2, 0] and ring[2, 1] == ring[3, 1] and ring[3, 0] == ring[0, 0]
    )


def _rectangle(x0: float, y0: float, x1: float, y1: float) -> Region:
    return (np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]) / 1000,)


def _orientation(source: Any) -> int:
    """EXIF's orientation, by the file's header; 1 where there is none."""
    if isinstance(source, Mapping):
        source = source.get("path") if source.get("bytes") is None else source["bytes"]
    try:
        if isinstance(source, Image.Image):
            return int(source.getexif().get(_ORIENTATION, 1))
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            number = int(opened.getexif().get(_ORIENTATION, 1))
            return number if 1 <= number <= 8 else 1
    except Exception:  # a form that Pillow alone does not read
        return 1
