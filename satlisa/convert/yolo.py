"""YOLO (Ultralytics): `data.yaml`, and a text file per image with a line per object, normalised to 0–1.

`class x y x y …` is an outline, `class cx cy w h` a box by its centre. Class ids are positions in `names`, from 0. An
outline joins its parts by lines there and back, which enclose nothing. Ultralytics loads images upright.
"""

import argparse
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]

from satlisa.convert.picture import UPRIGHT, Picture, images_in, try_picture
from satlisa.convert.problems import Problems
from satlisa.convert.scene import Scene, Thing
from satlisa.convert.shapes import NO_AREA, OUTSIDE, NoAreaError, box_thing, polygon_thing, reaches_outside
from satlisa.convert.splits import split_named
from satlisa.errors import SatlisaError, first_line


def read(inputs: list[str], options: argparse.Namespace, problems: Problems) -> list[Scene]:
    """The images of the splits that a `data.yaml` (or the folder that holds it) names.

    An image without a text file, or with an empty one, has no objects, as in Ultralytics.

    Raises:
        SatlisaError: no such file, classes that are not named, lines that are no object, no normalised numbers.
    """
    scenes = []
    for path in map(Path, inputs):
        file = path / "data.yaml" if path.is_dir() else path
        settings = _settings(file)
        names = _names(file, settings.get("names"))
        for split in ("train", "val", "test"):
            for image in _images(file, settings, split):
                where = str(image)
                if picture := try_picture(image, where, problems):
                    things = list(_things(_labels_of(image), names, picture, options.exif or UPRIGHT, problems))
                    name = _name(image, file.parent)
                    scenes.append(Scene(name, picture, things, list(names.values()), (), split_named(split)))
    return scenes


def _settings(file: Path) -> Mapping[str, Any]:
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise SatlisaError(f"{file}: expected YOLO's data.yaml ({first_line(error)})") from error
    if not isinstance(settings, Mapping) or not any(settings.get(name) for name in ("train", "val", "test")):
        raise SatlisaError(f"{file}: expected names, and train, val or test with folders of images")
    return settings


def _names(file: Path, names: Any) -> dict[int, str]:
    listed = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(listed, Mapping) or not listed or not all(isinstance(number, int) for number in listed):
        raise SatlisaError(f"{file}: names: expected a list of classes, or an object of them by number")
    return {number: str(name) for number, name in listed.items()}


def _images(file: Path, settings: Mapping[str, Any], split: str) -> Iterator[Path]:
    """The images of a split: folders, or text files that list images."""
    base = file.parent / str(settings.get("path") or "")
    named = settings.get(split) or []
    for name in named if isinstance(named, list) else [named]:
        # Roboflow writes "../train/images" beside the folder that it means.
        places = (base / str(name), file.parent / str(name), file.parent / re.sub(r"^(?:\.\./)+", "", str(name)))
        place = next((place for place in places if place.exists()), None)
        if place is None:
            raise SatlisaError(f"{file}: {split}: {places[0]} does not exist; mend the path")
        if place.is_dir():
            yield from images_in(place)
        else:
            for line in filter(None, map(str.strip, place.read_text(encoding="utf-8").splitlines())):
                yield place.parent / line if line.startswith(".") else base / line


def _labels_of(image: Path) -> Path:
    """The text file of an image: the last folder `images` becomes `labels`."""
    parts = list(image.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")


def _name(image: Path, folder: Path) -> str:
    return image.relative_to(folder).as_posix() if image.is_relative_to(folder) else image.as_posix()


def _things(path: Path, names: Mapping[int, str], picture: Picture, grid: str, problems: Problems) -> Iterator[Thing]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        where = f"{path}: line {number}"
        if not line.strip():
            continue
        try:
            kind, *values = [float(word) for word in line.split()]
            if kind not in names:
                raise ValueError(f"the class {kind:g} is not in data.yaml, which names {len(names)}")
            label, numbers = names[int(kind)], np.array(values)
            if not np.isfinite(numbers).all():
                raise ValueError("expected finite numbers, found NaN or infinity")
            if len(numbers) and (numbers.max() > 1.5 or numbers.min() < -0.5):
                raise ValueError(f"expected numbers from 0 to 1, found {numbers[np.argmax(abs(numbers))]:g} (pixels?)")
            yield _thing(label, numbers, picture, grid, where, problems)
        except NoAreaError:
            problems.add(NO_AREA, where)
        except ValueError as error:
            raise SatlisaError(f"{where}: {error}; mend or remove it") from error


def _thing(label: str, numbers: np.ndarray, picture: Picture, grid: str, where: str, problems: Problems) -> Thing:
    if len(numbers) == 4:
        x, y, width, height = numbers
        points = np.array([[x - width / 2, y - height / 2], [x + width / 2, y + height / 2]])
    elif len(numbers) >= 6 and len(numbers) % 2 == 0:
        points = numbers.reshape(-1, 2)
    else:
        raise ValueError(f"expected a class and 4 numbers (box) or 6 and more (outline), found {len(numbers)} numbers")
    if reaches_outside(points, (1, 1)):
        problems.add(OUTSIDE, where)
    if len(numbers) == 4:
        return box_thing(label, points.ravel().tolist(), picture, (1, 1), grid)
    return polygon_thing(label, [[points]], picture, (1, 1), grid)
