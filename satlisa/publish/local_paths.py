"""Refuse files that name folders of this machine, or hold an access token, before they are published."""

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from satlisa.errors import SatlisaError, redact

Files = dict[str, Path | bytes]
"""What is published: paths in the repository, each with its file on this machine or its content."""

_ROOTS = (
    "home|Users|root|tmp|private|mnt|media|Volumes|var|opt|srv|content|kaggle|workspaces?|work|"
    "scratch|data|datasets|gpfs|lustre|nfs|dbfs|fsx|efs"
)
_END = r"[^\s\"'`<>|)\]}},;]*"
_PATH = re.compile(
    rf"(?<![\w./~%*\\-])/(?:{_ROOTS})/[\w.~-]{_END}"
    rf"|(?<![\w/~])~/[\w.]{_END}"
    rf"|(?<![A-Za-z])[A-Za-z]:[\\/]+[\w .-]+[\\/]{_END}"  # with a drive
    rf"|file://[\w./~]{_END}"
)
_WHOLE = re.compile(r"/[^/\s]+(?:/[^/\s]+)+/?|\\\\[^\\\s]+\\[^\s]+")  # all of a JSON string
_VOCABULARIES = ("vocab.json", "vocab.txt", "merges.txt", "tokenizer.model")  # pieces such as "/home/" are words there
_MOST_HEADER = 2**26  # bytes of a safetensors header


def find_local_path(text: str) -> str | None:
    """The first path of a folder or file on some machine in a text; None where there is none."""
    found = _WHOLE.fullmatch(text.strip()) or _PATH.search(text)
    return found[0] if found else None


def refuse_local_paths(files: Files, folder: Path) -> None:
    """Read all files, the headers of weights included.

    Args:
        folder: the model directory, whose own place is looked for too, wherever it lies.

    Raises:
        SatlisaError: the first file that names a local path or holds a token, with both.
    """
    own = [str(place) for place in (folder.resolve(), Path.home()) if len(place.parts) > 2]
    for name, content in files.items():
        for where, text in _texts(name, content):
            found = next((place for place in own if place in text), None) or find_local_path(text)
            place = f"{name}{where}"
            if found:
                raise SatlisaError(
                    f"{place}: names '{found}', a place on this machine; nothing was published. Remove it in "
                    f"{_source(content, folder)}, then run the same command again"
                )
            if not name.endswith(".py") and redact(text) != text:
                raise SatlisaError(f"{place}: holds an access token; nothing was published. Remove and revoke it")


def _source(content: Path | bytes, folder: Path) -> str:
    return str(content) if isinstance(content, Path) else f"{folder} or the evaluation's results"


def _texts(name: str, content: Path | bytes) -> Iterator[tuple[str, str]]:
    """(place in the file, text) of all that can be read in a file; numbers of tensors are left out."""
    kind = Path(name).suffix
    if Path(name).name in _VOCABULARIES:
        return
    if kind == ".safetensors":
        yield from _strings(_safetensors_header(content))
    elif kind in (".pt", ".bin"):
        yield from (("", text) for text in _torch_texts(content))
    elif kind in (".png", ".jpg", ".jpeg") and isinstance(content, Path):
        with Image.open(content) as image:
            image.load()  # text may follow the pixels
            yield "", str({key: value for key, value in image.info.items() if isinstance(value, str)})
    elif kind not in (".png", ".jpg", ".jpeg"):
        text = (content.read_bytes() if isinstance(content, Path) else content).decode(errors="replace")
        yield from _strings(_without_vocabulary(text)) if kind == ".json" else [("", text)]


def _without_vocabulary(text: str) -> Any:
    """The content of a JSON file, of a tokenizer without its words; text that is no JSON is checked as it is."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(content, dict) and isinstance(model := content.get("model"), dict) and "vocab" in model:
        content["model"] = {key: value for key, value in model.items() if key not in ("vocab", "merges")}
    return content


def _strings(content: Any, where: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(content, str):
        yield where, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield where, str(key)
            yield from _strings(value, f"{where}: {key}")
    elif isinstance(content, list):
        for value in content:
            yield from _strings(value, where)


def _safetensors_header(content: Path | bytes) -> Any:
    if isinstance(content, bytes):
        return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    with open(content, "rb") as file:
        return json.loads(file.read(min(int.from_bytes(file.read(8), "little"), _MOST_HEADER)))


def _torch_texts(content: Path | bytes) -> Iterator[str]:
    """The members of a torch file but its numbers; of the format before torch 1.6, all of it."""
    if not isinstance(content, Path):
        return
    if not zipfile.is_zipfile(content):
        yield content.read_bytes().decode("latin-1")
        return
    with zipfile.ZipFile(content) as archive:
        for member in archive.namelist():
            yield member
            if "/data/" not in member:
                yield archive.read(member).decode("latin-1")
