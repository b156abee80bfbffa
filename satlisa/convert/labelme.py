"""labelme: a JSON file per image with `shapes` in pixels. labelme shows and stores images upright."""

import argparse
import base64
import binascii
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from satlisa.convert.picture import UPRIGHT, Picture, open_picture, try_picture
from satlisa.convert.problems import Problems
from satlisa.convert.scene import Scene, Thing
from satlisa.convert.shapes import (
    NO_AREA,
    NO_FIT,
    OUTSIDE,
    NoAreaError,
    Part,
    box_thing,
    mask_thing,
    pixel_size,
    polygon_thing,
    reaches_outside,
)
from satlisa.convert.splits import split_named
from satlisa.convert.templates import read_json
from satlisa.data.json_cells import describe
from satlisa.data.masks import read_mask_image
from satlisa.errors import SatlisaError

_NO_SURFACE = "points and lines, left out"
_LINES = ("point", "points", "line", "linestrip")
_CIRCLE = 64  # corners


def read(inputs: list[str], options: argparse.Namespace, problems: Problems) -> list[Scene]:
    """The images of all JSON files in folders; an image that is not beside its file is taken from `imageData`.

    Shapes of one label and one `group_id` are parts of one object.

    Raises:
        SatlisaError: no such files, or shapes that are none.
    """
    files = [path for folder in map(Path, inputs) for path in sorted(folder.rglob("*.json"))]
    if not files:
        raise SatlisaError(f"{', '.join(inputs)}: no JSON file; give the folder with labelme's files")
    contents = [(path, _content(path)) for path in files]
    labels = list(dict.fromkeys(str(shape.get("label")) for _, content in contents for shape in content["shapes"]))
    scenes = []
    for path, content in contents:
        picture = _picture(path, content, problems)
        if picture is None:
            continue
        width, height = content.get("imageWidth"), content.get("imageHeight")
        size = (int(width), int(height)) if width and height else None
        try:
            grid = picture.grid(size, options.exif or UPRIGHT)
        except ValueError as error:
            problems.add(NO_FIT, f"{path}: {error}")
            continue
        things = _things(path, content["shapes"], picture, grid, problems)
        marked = {str(shape["label"]) for shape in content["shapes"] if shape.get("shape_type") in _LINES}
        asked = [label for label in labels if label not in marked]  # what a point marks is there
        scenes.append(Scene(path.as_posix(), picture, things, asked, (), split_named(path.parent.name)))
    if not all(scene.split for scene in scenes):
        return [Scene(s.name, s.picture, s.things, s.labels) for s in scenes]
    return scenes


def _content(path: Path) -> Mapping[str, Any]:
    content = read_json(path)
    shapes = content.get("shapes") if isinstance(content, Mapping) else None
    if not isinstance(shapes, list) or not all(isinstance(shape, Mapping) and shape.get("label") for shape in shapes):
        raise SatlisaError(f"{path}: expected labelme's `shapes` with labels, found {describe(content)}")
    return dict(content)


def _picture(path: Path, content: Mapping[str, Any], problems: Problems) -> Picture | None:
    name = str(content.get("imagePath") or "").replace("\\", "/")
    beside = path.parent / name
    data = content.get("imageData")
    if (not name or not beside.is_file()) and isinstance(data, str):
        try:
            return open_picture(path.with_suffix(".png"), base64.b64decode(data, validate=True))
        except (binascii.Error, ValueError, SatlisaError) as error:
            raise SatlisaError(f"{path}: imageData cannot be read ({error}); put the image beside it") from error
    return try_picture(beside, f"{path} ({name})", problems)


def _things(path: Path, shapes: list[Any], picture: Picture, grid: str, problems: Problems) -> list[Thing]:
    objects: dict[Any, list[tuple[int, Mapping[str, Any]]]] = defaultdict(list)
    for number, shape in enumerate(shapes):
        group = shape.get("group_id")
        objects[(shape["label"], "alone" if group is None else "group", number if group is None else group)].append(
            (number, shape)
        )
    things = []
    for (label, _, _), held in objects.items():
        where = f"{path}: shape {held[0][0]}"
        try:
            if thing := _thing(str(label), [shape for _, shape in held], picture, grid, where, problems):
                things.append(thing)
        except NoAreaError:
            problems.add(NO_AREA, where)
        except (ValueError, TypeError) as error:
            raise SatlisaError(f"{where}: {error}; mend or remove it") from error
    return things


def _thing(
    label: str, shapes: list[Mapping[str, Any]], picture: Picture, grid: str, where: str, problems: Problems
) -> Thing | None:
    """The shapes of one object; None: points and lines alone."""
    kinds = [shape.get("shape_type") or "polygon" for shape in shapes]
    size = pixel_size(picture, grid)
    if "mask" in kinds:
        return mask_thing(label, _union(shapes, size), picture, grid)
    parts: list[Part] = []
    for kind, shape in zip(kinds, shapes, strict=True):
        points = np.array(shape.get("points"), dtype=np.float64).reshape(-1, 2)
        if kind in _LINES:
            problems.add(_NO_SURFACE, where)
            continue
        if kind == "circle":
            angles = np.linspace(0, 2 * np.pi, _CIRCLE, endpoint=False)
            points = points[0] + np.hypot(*(points[1] - points[0])) * np.stack([np.cos(angles), np.sin(angles)], 1)
        elif kind == "rectangle":
            (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
            if len(shapes) == 1:
                return box_thing(label, (x0, y0, x1, y1), picture, size, grid)
            points = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
        elif kind not in ("polygon", "oriented_rectangle", "rotation"):
            raise ValueError(f"expected a polygon, rectangle, circle or mask, found {kind!r}")
        if reaches_outside(points, size):
            problems.add(OUTSIDE, where)
        parts.append([points])
    return polygon_thing(label, parts, picture, size, grid) if parts else None


def _union(shapes: list[Mapping[str, Any]], size: tuple[int, int]) -> np.ndarray:
    """The mask (H, W) bool of shapes that hold a mask image of their bounding box, whose ends are in it."""
    full = np.zeros(size[::-1], dtype=bool)
    for shape in shapes:
        if not isinstance(shape.get("mask"), str):
            raise ValueError("expected masks alone in a group with a mask")
        (x0, y0), (x1, y1) = np.rint(np.array(shape["points"], dtype=np.float64)).astype(int)
        part = read_mask_image(base64.b64decode(shape["mask"])) != 0
        if part.shape != (y1 - y0 + 1, x1 - x0 + 1) or min(x0, y0) < 0 or x1 >= size[0] or y1 >= size[1]:
            raise ValueError(f"expected a mask of {x1 - x0 + 1} × {y1 - y0 + 1} pixels in the image")
        full[y0 : y1 + 1, x0 : x1 + 1] |= part
    return full
