"""Boxes: DOTA's text files (four corners in pixels), and VOC's XML (DIOR; two corners in pixels, from 1)."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from satlisa.convert.picture import STORED, ImageFinder, Picture, Size, try_picture
from satlisa.convert.problems import Problems
from satlisa.convert.scene import Scene, Thing
from satlisa.convert.shapes import (
    NO_AREA,
    NO_FIT,
    OUTSIDE,
    NoAreaError,
    box_thing,
    pixel_size,
    polygon_thing,
    reaches_outside,
)
from satlisa.convert.splits import split_named
from satlisa.errors import SatlisaError, first_line

_ABOUT = re.compile(r"\s*(?:imagesource|gsd|acquisition dates)\s*:", re.IGNORECASE)  # first lines of DOTA's files
Found = tuple[str, str, np.ndarray]
"""Where, label, corners (2, 2) or (4, 2) in pixels from 0."""


def read(inputs: list[str], options: argparse.Namespace, problems: Problems) -> list[Scene]:
    """The images of a folder of `.txt` (DOTA) or `.xml` (VOC, DIOR) files and one of images; they may be the same.

    Raises:
        SatlisaError: no such files, or lines that are no object.
    """
    folders = [Path(name) for name in inputs]
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise SatlisaError(f"{', '.join(missing)}: no such folder; give the folders of labels and of images")
    files = [path for folder in folders for ending in ("txt", "xml") for path in sorted(folder.rglob(f"*.{ending}"))]
    finder = ImageFinder(*folders)
    read_ = [(path, *(_read_voc(path) if path.suffix == ".xml" else _read_dota(path))) for path in files]
    labels = sorted({label for _, _, _, found in read_ for _, label, _ in found})
    scenes = []
    for path, name, size, found in read_:
        picture = try_picture(_image(finder, name or path.stem), str(path), problems)
        if picture is None:
            continue
        try:
            grid = picture.grid(size, options.exif or STORED)
        except ValueError as error:
            problems.add(NO_FIT, f"{path}: {error}")
            continue
        things = [thing for entry in found if (thing := _thing(entry, picture, grid, problems))]
        scenes.append(Scene(path.as_posix(), picture, things, labels, (), split_named(path.parent.name)))
    return scenes if all(s.split for s in scenes) else [Scene(s.name, s.picture, s.things, s.labels) for s in scenes]


def _image(finder: ImageFinder, name: str) -> Path:
    if Path(name).suffix:
        return finder.find(name)
    found = (finder.find(f"{name}{ending}") for ending in (".png", ".jpg", ".tif", ".bmp"))
    return next((path for path in found if path.exists()), finder.find(f"{name}.png"))


def _thing(entry: Found, picture: Picture, grid: str, problems: Problems) -> Thing | None:
    where, label, points = entry
    size = pixel_size(picture, grid)
    if reaches_outside(points, size):
        problems.add(OUTSIDE, where)
    try:
        if len(points) == 2:
            return box_thing(label, points.ravel().tolist(), picture, size, grid)
        return polygon_thing(label, [[points]], picture, size, grid)
    except NoAreaError:
        problems.add(NO_AREA, where)
        return None
    except ValueError as error:
        raise SatlisaError(f"{where}: {error}; mend or remove it") from error


def _read_dota(path: Path) -> tuple[str, Size | None, list[Found]]:
    """`x1 y1 x2 y2 x3 y3 x4 y4 class difficulty` in each line; the corners turn with the object."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words or _ABOUT.match(line):
            continue
        where = f"{path}: line {number}"
        try:
            corners = np.array([float(word) for word in words[:8]]).reshape(4, 2)
            label = words[8]
        except (ValueError, IndexError) as error:
            raise SatlisaError(f"{where}: expected eight numbers and a class, found {line[:60]!r}; mend it") from error
        found.append((where, label, corners))
    return "", None, found


def _read_voc(path: Path) -> tuple[str, Size | None, list[Found]]:
    """`xmin` and `ymin` are the first pixel from 1, `xmax` and `ymax` the last one: a box from xmin - 1 to xmax."""
    try:
        content = path.read_bytes()
        if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
            raise SatlisaError(f"{path}: has a DTD, which is not read; remove it")
        root = ElementTree.fromstring(content)
    except (OSError, ElementTree.ParseError) as error:
        raise SatlisaError(f"{path}: expected VOC's XML ({first_line(error)})") from error
    name = Path((root.findtext("filename") or "").replace("\\", "/")).name
    width, height = (int(float(root.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
    return name, (width, height) if width and height else None, list(_voc_objects(path, root))


def _voc_objects(path: Path, root: ElementTree.Element) -> Iterator[Found]:
    for number, entry in enumerate(root.iter("object")):
        where, label = f"{path}: object {number}", (entry.findtext("name") or "").strip()
        try:
            sides = [float(entry.findtext(f"bndbox/{side}") or "") for side in ("xmin", "ymin", "xmax", "ymax")]
        except ValueError as error:
            raise SatlisaError(f"{where}: expected bndbox with xmin, ymin, xmax and ymax; mend or remove it") from error
        if not label:
            raise SatlisaError(f"{where}: expected a name; mend or remove it")
        x0, y0, x1, y1 = sides
        yield where, label, np.array([[x0 - 1, y0 - 1], [x1, y1]])
