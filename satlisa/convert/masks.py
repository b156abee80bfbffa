"""Images with mask images: a class or an object per value."""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from satlisa.convert.picture import STORED, UPRIGHT, images_in, try_picture
from satlisa.convert.problems import Problems
from satlisa.convert.scene import Scene
from satlisa.convert.shapes import mask_thing
from satlisa.convert.splits import split_named
from satlisa.convert.templates import read_json
from satlisa.data.masks import read_mask_image
from satlisa.errors import SatlisaError

_IGNORE = "ignore"  # in a value map: pixels of unknown class
_NO_MASK = "images without a mask, left out"
_IGNORED = "masks with pixels to ignore, which count as not being of any class"
_ENDING = re.compile(r"[_-](?:mask|masks|label|labels|gt|seg|instance|instances|lab)$", re.IGNORECASE)


def read(inputs: list[str], options: argparse.Namespace, problems: Problems) -> list[Scene]:
    """The images of the first folder with the masks of the second, by equal names (also with `_mask`, `_label`, …).

    `options.values` is a JSON file {"1": "building", "#ff0000": "road", "255": "ignore"}; 0 is background unless it is
    named. With `options.instances`, each value is an object of that class, and no map is needed.

    Raises:
        SatlisaError: no such folders, no value map, or a value that is not in it.
    """
    if len(inputs) != 2 or not all(Path(name).is_dir() for name in inputs):
        raise SatlisaError(f"masks: expected a folder of images and a folder of masks, found {', '.join(inputs)}")
    if bool(options.values) == bool(options.instances):
        raise SatlisaError("masks: expected either --values FILE (class of each value) or --instances CLASS")
    images, folder = map(Path, inputs)
    names = {} if options.instances else _value_map(options.values)
    masks: dict[str, Path] = {}
    for path in images_in(folder):
        key = _ENDING.sub("", path.relative_to(folder).with_suffix("").as_posix())
        if key in masks:
            raise SatlisaError(f"{path}: a second mask of {key}, beside {masks[key]}; keep one")
        masks[key] = path
    scenes = []
    for path in images_in(images):
        name = path.relative_to(images)
        found = masks.get(name.with_suffix("").as_posix())
        if found is None:
            problems.add(_NO_MASK, str(path))
        elif picture := try_picture(path, str(path), problems):
            values = read_values(found)
            grid = UPRIGHT if options.exif == UPRIGHT else STORED
            try:
                things = [
                    mask_thing(label, mask, picture, grid, is_group=not options.instances)
                    for label, mask in _split(values, names, options.instances, found, problems)
                ]
            except ValueError as error:
                raise SatlisaError(f"{found}: {error}; give the mask of this image") from error
            labels = [options.instances] if options.instances else [n for n in names.values() if n != _IGNORE]
            split = split_named(name.parts[0]) if len(name.parts) > 1 else ""
            scenes.append(Scene(name.as_posix(), picture, things, list(dict.fromkeys(labels)), (), split))
    return scenes


def read_values(path: Path) -> np.ndarray:
    """The values of a mask image (H, W): grey levels, palette numbers, or red << 16 | green << 8 | blue.

    Raises:
        SatlisaError: a mask image that cannot be read.
    """
    try:
        return read_mask_image(path)
    except ValueError as error:
        raise SatlisaError(f"{path}: {error}") from error


def _value_map(path: Path) -> dict[int, str]:
    content = read_json(path)
    names = {}
    for key, label in content.items() if isinstance(content, Mapping) else [("", None)]:
        colour = re.fullmatch(r"#([0-9a-fA-F]{6})", key)
        if not (colour or re.fullmatch(r"\d{1,9}", key)) or not isinstance(label, str) or not label.strip():
            raise SatlisaError(f'{path}: expected an object like {{"1": "building", "#ff0000": "road"}}, found {key!r}')
        names[int(colour[1], 16) if colour else int(key)] = label
    return names


def _split(
    values: np.ndarray, names: Mapping[int, str], instances: str, path: Path, problems: Problems
) -> list[tuple[str, np.ndarray]]:
    """The masks (H, W) bool in a mask image, with their classes."""
    levels = [int(level) for level in np.unique(values)]
    if instances:
        return [(instances, values == level) for level in levels if level]
    by_label: dict[str, np.ndarray] = {}
    for level in levels:
        label = names.get(level, "" if level == 0 else None)
        if label is None:
            known = ", ".join(map(str, names))
            raise SatlisaError(f"{path}: the value {level} (#{level:06x}) is not in --values ({known}); name it there")
        if label == _IGNORE:
            problems.add(_IGNORED, str(path))
        elif label:
            by_label[label] = by_label.get(label, np.zeros(values.shape, dtype=bool)) | (values == level)
    return list(by_label.items())
