"""COCO's JSON: polygons of several parts, run lengths, groups ("crowd").

Boxes are `[x, y, width, height]` in pixels. Category ids are names, not positions: they may start anywhere and have
gaps. Polygons of an annotation are parts, never holes; only run lengths have holes.
"""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    mask_thing,
    pixel_size,
    polygon_thing,
    reaches_outside,
)
from satlisa.convert.splits import split_named
from satlisa.convert.templates import read_json
from satlisa.data.json_cells import describe
from satlisa.data.masks import is_run_lengths, read_run_lengths
from satlisa.errors import SatlisaError


def read(inputs: list[str], options: argparse.Namespace, problems: Problems) -> list[Scene]:
    """The images of `[SPLIT=]FILE.json …` with the folders of images; or of a folder that holds the JSON files.

    Raises:
        SatlisaError: files that are not COCO's, ids twice or unknown, coordinates that are no polygon.
    """
    files, folders = _find_files(inputs)
    scenes = []
    for split, path in files:
        own = [folder / path.stem.removeprefix("instances_") for folder in (*folders, path.parent.parent)]
        finder = ImageFinder(*filter(Path.is_dir, [*own, *folders, path.parent, path.parent.parent / "images"]))
        split = split or (split_named(path.stem) or split_named(path.parent.name) if len(files) > 1 else "")
        scenes += _read_file(path, split, finder, options.exif or STORED, problems)
    return scenes


def _find_files(inputs: list[str]) -> tuple[list[tuple[str, Path]], list[Path]]:
    """Annotation files with the splits that the user names, and folders of images."""
    files, folders = [], []
    for text in inputs:
        named = re.fullmatch(r"(train|validation|val|test)=(.+)", text)
        path = Path(named[2] if named else text)
        if path.is_dir():
            folders.append(path)
        elif path.is_file():
            files.append((split_named(named[1]) if named else "", path))
        else:
            raise SatlisaError(f"{path}: no such file or folder; give COCO's JSON and the folder of its images")
    if not files:
        files = [("", path) for folder in folders for path in sorted(folder.rglob("*.json"))]
    if not files:
        raise SatlisaError(f"{', '.join(inputs)}: no JSON file; give COCO's JSON and the folder of its images")
    return files, folders


def _read_file(path: Path, split: str, finder: ImageFinder, grid: str, problems: Problems) -> list[Scene]:
    content = read_json(path)
    if not isinstance(content, Mapping) or not {"images", "annotations", "categories"} <= content.keys():
        raise SatlisaError(f"{path}: expected COCO's images, annotations and categories, found {describe(content)}")
    labels = {number: str(entry["name"]) for number, entry in _by_id(path, content, "categories", "name").items()}
    classes = _classes(content, labels)
    images = _by_id(path, content, "images", "file_name")
    _by_id(path, content, "annotations", "category_id")
    held: dict[Any, list[Mapping[str, Any]]] = {number: [] for number in images}
    for entry in content["annotations"]:
        where = f"{path}: annotation {entry['id']}"
        if entry.get("image_id") not in held:
            raise SatlisaError(f"{where}: image_id {entry.get('image_id')!r} is none of the images; mend the file")
        if entry["category_id"] not in labels:
            known = ", ".join(map(str, list(labels)[:20]))
            raise SatlisaError(f"{where}: category_id {entry['category_id']!r} is none of the categories ({known})")
        held[entry["image_id"]].append(entry)
    scenes = []
    for number, image in images.items():
        where = f"{path}: image {number} ({image['file_name']})"
        picture = try_picture(finder.find(str(image["file_name"])), where, problems)
        if picture is None:
            continue
        try:
            size, kind = _grid(image, picture, grid)
        except ValueError as error:
            problems.add(NO_FIT, f"{where}: {error}")
            continue
        things = [
            thing
            for entry in held[number]
            if (thing := _thing(path, entry, labels[entry["category_id"]], picture, size, kind, problems))
        ]
        name = f"{split}/{image['file_name']}".lstrip("/")  # two splits may have files of one name
        scenes.append(Scene(name, picture, things, classes, (), split))
    return scenes


def _classes(content: Mapping[str, Any], labels: Mapping[Any, str]) -> list[str]:
    """The classes that would be annotated: not the supercategory that Roboflow lists as a category, without objects."""
    used = {entry.get("category_id") for entry in content["annotations"] if isinstance(entry, Mapping)}
    above = ((entry.get("supercategory"), entry["name"]) for entry in content["categories"])
    parents = {str(parent) for parent, name in above if parent != name}
    return list(dict.fromkeys(label for number, label in labels.items() if number in used or label not in parents))


def _by_id(path: Path, content: Mapping[str, Any], name: str, needed: str) -> dict[Any, Mapping[str, Any]]:
    """The entries of a list by their ids."""
    found: dict[Any, Mapping[str, Any]] = {}
    if not isinstance(content[name], list):
        raise SatlisaError(f"{path}: {name}: expected a list, found {describe(content[name])}")
    for place, entry in enumerate(content[name]):
        if not isinstance(entry, Mapping) or not isinstance(entry.get("id"), int | str) or needed not in entry:
            raise SatlisaError(f"{path}: {name}[{place}]: expected an object with id and {needed}; mend the file")
        if entry["id"] in found:
            raise SatlisaError(f"{path}: {name}: the id {entry['id']!r} is there twice; mend the file")
        found[entry["id"]] = entry
    return found


def _grid(image: Mapping[str, Any], picture: Picture, default: str) -> tuple[Size, str]:
    """The size in pixels that an image's annotations refer to, and the grid."""
    width, height = image.get("width"), image.get("height")
    size = (width, height) if isinstance(width, int) and isinstance(height, int) and width and height else None
    kind = picture.grid(size, default)
    return pixel_size(picture, kind), kind


def _thing(
    path: Path, entry: Mapping[str, Any], label: str, picture: Picture, size: Size, grid: str, problems: Problems
) -> Thing | None:
    """An annotation as an object; None: it covers nothing."""
    where = f"{path}: annotation {entry['id']}"
    shape, is_group = entry.get("segmentation"), bool(entry.get("iscrowd"))
    try:
        if isinstance(shape, Mapping) and is_run_lengths(shape):
            return mask_thing(label, read_run_lengths(shape), picture, grid, is_group)
        if shape:
            parts = _polygons(shape)
            if any(reaches_outside(ring, size) for ring in parts):
                problems.add(OUTSIDE, where)
            return polygon_thing(label, [[ring] for ring in parts], picture, size, grid, is_group)
        x, y, width, height = _box(entry.get("bbox"))
        corners = (x, y, x + width, y + height)
        if reaches_outside(np.array(corners, dtype=float).reshape(2, 2), size):
            problems.add(OUTSIDE, where)
        return box_thing(label, corners, picture, size, grid)
    except NoAreaError:
        problems.add(NO_AREA, where)
        return None
    except (ValueError, TypeError) as error:
        raise SatlisaError(f"{where}: {error}; mend or remove it") from error


def _box(value: Any) -> list[float]:
    if not isinstance(value, list) or len(value) != 4 or not all(type(number) in (int, float) for number in value):
        raise ValueError(f"expected a box [x, y, width, height] where there is no outline, found {describe(value)}")
    return value


def _polygons(value: Any) -> list[np.ndarray]:
    """The parts of `segmentation`, each flat [x, y, x, y, …]; a single flat list counts as one."""
    items = [value] if isinstance(value, list) and value and not isinstance(value[0], list) else value
    rings = []
    for item in items if isinstance(items, list) else [items]:
        numbers = isinstance(item, list) and all(type(number) in (int, float) for number in item)
        if not numbers or len(item) < 6 or len(item) % 2:
            raise ValueError(f"expected polygons [x, y, x, y, …] of three points or more, found {describe(item)}")
        rings.append(np.array(item, dtype=np.float64).reshape(-1, 2))
    return rings
