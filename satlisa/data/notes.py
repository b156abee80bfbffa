"""Say how an image was read where it could be meant otherwise."""

import logging
import re

from PIL import Image

MORE_PAGES = "has further pages of its size, such as one for each band; the first is shown"
TWO_BANDS = "has 2 bands; the first is shown as grey"

_log = logging.getLogger(__name__)
_noted: set[str] = set()
_NAMELESS = re.compile(r"array|image (object|file|of [\d,]+ bytes)")
_MAX_NOTES = 20  # a dataset may hold ten thousand such images


def note(name: str, text: str) -> None:
    """Say how an image was read where it could be meant otherwise: once for each file, and for a few images."""
    key = f"{name} {text} {len(_noted) if _NAMELESS.fullmatch(name) else ''}"  # one size or type is of many images
    if key not in _noted and len(_noted) <= _MAX_NOTES:
        _noted.add(key)
        _log.warning("%s %s", name, text if len(_noted) <= _MAX_NOTES else f"{text}; others like it are not named")


def note_left_out(image: Image.Image, name: str) -> None:
    """Say which bands and pages of a TIFF Pillow leaves out. Smaller copies and masks are none."""
    tags = getattr(image, "tag_v2", {})
    if image.mode == "L" and len(tags.get(258, ())) == 2:
        note(name, TWO_BANDS)
    if (
        image.format != "TIFF"
        or getattr(image, "fp", None) is None
        or image.tell()
        or getattr(image, "n_frames", 1) < 2
    ):
        return
    size = image.size
    image.seek(1)
    if image.size == size and not image.tag_v2.get(254, 0) & 5:  # type: ignore[attr-defined]
        note(name, MORE_PAGES)
    image.seek(0)
