"""Which image files a folder or a pattern names, in natural order: img2 before img10."""

import glob
import logging
import os
import re
from collections.abc import Collection
from functools import cache
from pathlib import Path

from PIL import Image

from satlisa.errors import SatlisaError

logger = logging.getLogger(__name__)

_NO_PICTURES = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PDF", "WMF")  # Pillow knows the names, but shows no picture
_SHOWN = 3


def find_images(image: str, leave_out: Collection[Path] = ()) -> list[str]:
    """The images that a file, a folder or a pattern names, as they are written there, in natural order.

    Of a folder its own files, of a pattern all matches (`**` stands for any number of folders); hidden files are left
    out, and those whose suffix is of no image format, which is logged. A file that is named itself is always taken.

    Args:
        leave_out: files that are no input, such as the output.

    Raises:
        SatlisaError: nothing is found; says what was looked for, and where.
    """
    place = Path(image)
    if place.is_file():
        return [str(place)]
    if place.is_dir():
        found, looked_for = (
            [str(path) for path in place.iterdir() if not path.name.startswith(".")],
            "image files in it",
        )
    elif glob.has_magic(image):
        found, looked_for = glob.glob(str(place), recursive=True), "files that match the pattern"
    else:
        raise SatlisaError(f"--image: {image}: no such file or folder; check the path, or give a pattern with *")
    taken = {os.path.realpath(path) for path in leave_out}
    files = [path for path in dict.fromkeys(found) if os.path.isfile(path) and os.path.realpath(path) not in taken]
    images = sorted((path for path in files if Path(path).suffix.lower() in image_suffixes()), key=_natural)
    others = sorted({*files} - {*images})
    if not images:
        reason = f"{len(others)} other files are there" if others else "nothing is there"
        raise SatlisaError(
            f"--image: {image}: found no {looked_for} with the suffix of an image ({reason}, seen from {Path.cwd()}); "
            "check folder and pattern, ** goes through subfolders"
        )
    if others:
        names = ", ".join(Path(path).name for path in others[:_SHOWN]) + (", …" if len(others) > _SHOWN else "")
        logger.info(
            "%s: %d images; no images by their suffix, left out: %d (%s)", image, len(images), len(others), names
        )
    return images


@cache
def image_suffixes() -> frozenset[str]:
    """Suffixes, in lower case, of the formats that are read."""
    Image.init()
    known = Image.registered_extensions().items()
    return frozenset(suffix for suffix, name in known if name in Image.OPEN and name not in _NO_PICTURES)


def _natural(path: str) -> list[list[tuple[int, int, str]]]:
    """Folder by folder, numbers by their value and text without regard to case."""
    parts = [re.findall(r"\d+|\D+", part) for part in Path(path).parts]
    keys = [[(0, int(p), p) if p.isdecimal() else (1, 0, p.casefold()) for p in part] for part in parts]
    return [*keys, [(1, 0, path)]]
