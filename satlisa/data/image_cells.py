"""Image cells in other forms than bytes and path: text of base64, members of a zip archive, lists of one image."""

import base64
import binascii
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

MOST_BYTES = 2**30
"""Largest file of an image: four bytes for each pixel of the largest image that is read, and some."""

_DATA_URI = re.compile(r"data:[\w.+/-]*(?:;[\w.=+-]+)*;base64,", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{40,}={0,2}")  # shorter than any image file
_ZIP = re.compile(r"zip://(?P<member>.+?)::(?P<archive>.+)")
_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"II*\0", b"MM\0*", b"II+\0", b"BM", b"\0\0\0\x0cjP")


def unpack(cell: Any) -> Any:
    """A cell of a list with one image, or of base64 in place of a path or of bytes, in its usual form; any other cell
    passes through.

    Raises:
        ValueError: a list of none or of several images, or text in place of bytes that is no image.
    """
    if isinstance(cell, list | tuple):
        if len(cell) != 1:
            raise ValueError(f"holds {len(cell)} images; a row is about one image")
        return unpack(cell[0])
    held = cell.get("bytes") if isinstance(cell, Mapping) else None
    text = cell if not isinstance(cell, Mapping) else cell.get("path") if held is None else held
    if not isinstance(text, str):
        return cell
    content = decode_base64(text)
    if content is None and held is not None:
        raise ValueError(f"has `bytes` that are text, and not base64 of an image: {text[:40]!r}")
    return cell if content is None else {"bytes": content, "path": None}


def is_image(cell: Any) -> bool:
    """Whether the cell of another column is an image too: a file's bytes or path, a Pillow image, a list of these."""
    if isinstance(cell, list | tuple):
        return any(map(is_image, cell))
    if isinstance(cell, Mapping):
        return cell.keys() >= {"bytes", "path"} and (cell["bytes"] is not None or cell["path"] is not None)
    return isinstance(cell, Image.Image) or (isinstance(cell, bytes) and cell.startswith(_SIGNATURES))


def decode_base64(text: str) -> bytes | None:
    """The file in a data URI or in text that is base64 of an image; None: neither."""
    is_uri = (found := _DATA_URI.match(text)) is not None
    packed = "".join(text[found.end() if found else 0 :].split()) if is_uri or len(text) > 40 else ""
    if not packed or not (is_uri or _BASE64.fullmatch(packed)):
        return None
    try:
        packed = packed.replace("-", "+").replace("_", "/")
        content = base64.b64decode(packed + "=" * (-len(packed) % 4 if not is_uri else 0), validate=True)
    except (binascii.Error, ValueError):
        return None
    return content if is_uri or content.startswith(_SIGNATURES) else None


def split_zip(path: str) -> tuple[str, str] | None:
    """Member and archive of the `zip://member::archive` that `datasets` makes; None: another path."""
    found = _ZIP.fullmatch(path)
    if not found or "::" in found["archive"] or "://" in found["archive"]:
        return None
    return found["member"], found["archive"]


def read_zipped(archive: Path, member: str) -> bytes:
    """A file of an archive.

    Raises:
        ValueError: no such member, a broken archive, or a file of more than `MOST_BYTES`.
    """
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(member) as file:
            content = file.read(MOST_BYTES + 1)
    except (KeyError, OSError, RuntimeError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"cannot be read from its archive ({type(error).__name__})") from error
    if len(content) > MOST_BYTES:
        raise ValueError(f"is larger than {MOST_BYTES:,} bytes")
    return content
