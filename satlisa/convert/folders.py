"""One folder per class (EuroSAT, PatternNet): the class of each scene."""

import argparse
from pathlib import Path

from satlisa.convert.picture import images_in, try_picture
from satlisa.convert.problems import Problems
from satlisa.convert.scene import Scene, Spoken
from satlisa.convert.splits import split_named
from satlisa.errors import SatlisaError


def read(inputs: list[str], options: argparse.Namespace, problems: Problems) -> list[Scene]:
    """The images of `CLASS/*.jpg`, or of `train/CLASS/*.jpg` where the first folders are named like splits.

    Raises:
        SatlisaError: no such folder, or an image outside of a class's folder.
    """
    scenes = []
    for root in map(Path, inputs):
        if not root.is_dir():
            raise SatlisaError(f"{root}: expected a folder with a folder per class; check the path")
        folders = [entry for entry in sorted(root.iterdir()) if entry.is_dir()]
        has_splits = bool(folders) and all(split_named(folder.name) for folder in folders)
        for path in images_in(root):
            name = path.relative_to(root)
            parts = name.parts[has_splits:-1]
            if len(parts) != 1:
                raise SatlisaError(f"{path}: expected images in a folder per class, {root}/CLASS/{path.name}")
            if picture := try_picture(path, str(name), problems):
                split = split_named(name.parts[0]) if has_splits else ""
                said = Spoken("scene_classification", "", parts[0])
                scenes.append(Scene(name.as_posix(), picture, spoken=[said], split=split))
    return scenes
