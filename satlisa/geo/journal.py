"""Answered windows on disk: an interrupted run is resumed from them, and stitched again from the first one.

A file of records, each `length, checksum, zlib(data)`: first what the run depends on, then one record per batch. A
record that a kill cut short is dropped; a batch is answered as a whole or again, so that batches are the same.
"""

import io
import json
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from satlisa.errors import SatlisaError
from satlisa.geo.answers import Piece, WindowAnswer
from satlisa.runtime.fingerprint import Identity, differences

_HEAD = struct.Struct("<QI")


class OtherRunError(SatlisaError):
    """A journal is of a run with another scene, model or options."""


Entry = tuple[np.ndarray, WindowAnswer | None]
"""Where a window has data (H, W) bool, and its answer; None where it has none."""


class Journal:
    """The journal of one run, in `path`; a context manager.

    Attributes:
        resume: continue with the batches that are in the file; else it is replaced.
    """

    def __init__(self, path: Path, identity: Identity, *, resume: bool) -> None:
        self.path, self.identity, self.resume = path, identity, resume
        self._file: Any = None

    def __enter__(self) -> "Journal":
        """Open the file.

        Raises:
            OtherRunError: it is of a run with another scene, model or options.
        """
        if not (self.resume and self.path.is_file()):
            self.path.write_bytes(b"")
        self._file = open(self.path, "r+b")
        first = self._next()
        if first is None:
            self._file.truncate(0)
            self._file.seek(0)
            self._write(json.dumps(self.identity).encode())
        elif different := differences(json.loads(first), json.loads(json.dumps(self.identity))):
            self._file.close()
            raise OtherRunError(
                f"--resume: {self.path} is of another run ({different}); leave out --resume to start over"
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def replay(self) -> Iterator[list[Entry]]:
        """The finished batches, in order; afterwards new ones may be written."""
        while True:
            place = self._file.tell()
            data = self._next()
            if data is None:
                self._file.truncate(place)
                self._file.seek(place)
                return
            yield _unpack(data)

    def append(self, batch: Sequence[Entry]) -> None:
        """Write a batch; a killed process keeps it."""
        self._write(_pack(batch))

    def _write(self, data: bytes) -> None:
        packed = zlib.compress(data, 1)
        self._file.write(_HEAD.pack(len(packed), zlib.crc32(packed)) + packed)
        self._file.flush()

    def _next(self) -> bytes | None:
        """The next record; None at the end, or where it is incomplete."""
        head = self._file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        length, checksum = _HEAD.unpack(head)
        if length > os.fstat(self._file.fileno()).st_size - self._file.tell():
            return None
        packed = self._file.read(length)
        return zlib.decompress(packed) if zlib.crc32(packed) == checksum else None


def _pack(batch: Sequence[Entry]) -> bytes:
    head, body = [], io.BytesIO()
    for valid, answer in batch:
        body.write(np.packbits(valid).tobytes())
        entry: dict[str, Any] = {"size": valid.shape}
        if answer is not None:
            entry |= {"text": answer.text, "segs": answer.num_segs, "levels": answer.levels is not None}
            entry["pieces"] = [(piece.box, len(piece.bits), piece.score) for piece in answer.pieces]
            body.write(b"" if answer.levels is None else answer.levels.tobytes())
            body.writelines(piece.bits for piece in answer.pieces)
        head.append(entry)
    text = json.dumps(head).encode()
    return struct.pack("<I", len(text)) + text + body.getvalue()


def _unpack(data: bytes) -> list[Entry]:
    (length,) = struct.unpack_from("<I", data)
    body = io.BytesIO(data[4 + length :])
    return [_entry(entry, body) for entry in json.loads(data[4 : 4 + length])]


def _entry(entry: dict[str, Any], body: io.BytesIO) -> Entry:
    height, width = entry["size"]
    packed = np.frombuffer(body.read((height * width + 7) // 8), dtype=np.uint8)
    valid = np.unpackbits(packed, count=height * width).reshape(height, width).astype(bool)
    if "text" not in entry:
        return valid, None
    levels = None
    if entry["levels"]:
        levels = np.frombuffer(body.read(height * width), dtype=np.int8).reshape(height, width)
    pieces = tuple(Piece(tuple(box), body.read(size), score) for box, size, score in entry["pieces"])
    return valid, WindowAnswer(entry["text"], entry["segs"], levels, pieces)
