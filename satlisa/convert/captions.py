"""Captions: RSICD's JSON (also of UCM- and Sydney-captions), and CSV."""

import argparse
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from satlisa.convert.picture import ImageFinder, try_picture
from satlisa.convert.problems import Problems
from satlisa.convert.scene import Scene, Spoken
from satlisa.convert.splits import split_named
from satlisa.convert.tables import read_csv, text_of
from satlisa.convert.templates import read_json
from satlisa.data.json_cells import describe
from satlisa.errors import SatlisaError

_TWICE = "captions that an image has twice, left out"
_COLUMNS = (("image", "filename", "file_name", "file", "filepath"), ("caption", "text", "raw", "sentence"))


def read(inputs: list[str], options: argparse.Namespace, problems: Problems) -> list[Scene]:
    """The images of a JSON or CSV file, with the folders of images; a row for each caption of an image.

    Raises:
        SatlisaError: no such files, or a caption that is none.
    """
    files = [Path(name) for name in inputs if not Path(name).is_dir()]
    if not files:
        raise SatlisaError(f"{', '.join(inputs)}: no file of captions; give its JSON or CSV and the folder of images")
    scenes = []
    for path in files:
        folders = [Path(name) for name in inputs if Path(name).is_dir()]
        finder = ImageFinder(*folders, path.parent)
        held = _from_csv(path) if path.suffix.lower() == ".csv" else _from_json(path)
        for name, (split, captions) in held.items():
            kept = list(dict.fromkeys(captions))
            for caption, count in Counter(captions).items():
                for _ in range(count - 1):
                    problems.add(_TWICE, f"{path}: {name}: {caption[:40]}")
            if picture := try_picture(finder.find(name), f"{path}: {name}", problems):
                said = [Spoken("image_captioning", "", caption) for caption in kept]
                scenes.append(Scene(name, picture, spoken=said, split=split))
    return scenes


def _from_csv(path: Path) -> dict[str, tuple[str, list[str]]]:
    held: dict[str, tuple[str, list[str]]] = {}
    for line, row in read_csv(path, _COLUMNS):
        caption = text_of(row["caption"], f"{path}: line {line}")
        held.setdefault(text_of(row["image"], f"{path}: line {line}"), ("", []))[1].append(caption)
    return held


def _from_json(path: Path) -> dict[str, tuple[str, list[str]]]:
    content = read_json(path)
    images = content.get("images") if isinstance(content, Mapping) else None
    if not isinstance(images, list):
        raise SatlisaError(f"{path}: expected RSICD's `images` with filename and sentences, found {describe(content)}")
    held: dict[str, tuple[str, list[str]]] = {}
    for number, image in enumerate(images):
        where = f"{path}: images[{number}]"
        sentences = image.get("sentences") if isinstance(image, Mapping) else None
        if not isinstance(sentences, list) or not sentences:
            raise SatlisaError(f"{where}: expected an object with filename and sentences, found {describe(image)}")
        name = text_of(image.get("filename"), where)
        if name in held:
            raise SatlisaError(f"{where}: {name} is there twice; join the entries")
        texts = [text_of(item.get("raw") if isinstance(item, Mapping) else item, where) for item in sentences]
        held[name] = (split_named(str(image.get("split") or "")), texts)
    return held
