"""Fingerprint of a dataset's rows."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets

from satlisa.data.dataset import COLUMNS
from satlisa.data.sampler import IndexedSampler, Sampler

_TEXTS = [column for column in COLUMNS if column != "image"]
_SOME_ROWS = 8  # rows whose images are hashed; for a stream, their texts too
_TEXTS_AT_A_TIME = 1000


def rows_key(sampler: Sampler) -> str:
    """Hash of all texts, if they can be read without the images, and of the images of a few rows."""
    digest = hashlib.sha256()
    try:
        for text in _all_texts(sampler):
            digest.update(text.encode(errors="surrogatepass"))
    except Exception:  # damaged files; see below
        digest.update(b"damaged")
    for row in sampler.probe(_SOME_ROWS):
        try:
            cells = row.fetch()
            parts = [json.dumps([str(cells.get(column)) for column in _TEXTS]).encode(), _image_bytes(cells["image"])]
        except Exception:  # training reads the damaged row again and counts it
            parts = [b"damaged"]
        for part in (str(row.index).encode(), *parts):
            digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]


def _all_texts(sampler: Sampler) -> Iterator[str]:
    """The texts of an Arrow table as JSON, in batches of rows; nothing for other datasets."""
    source = sampler.source if isinstance(sampler, IndexedSampler) else None
    if not isinstance(source, datasets.Dataset):
        return
    names = [name for name in _TEXTS if name in source.column_names]
    rows = source.select(range(len(sampler))).select_columns(names).with_format("arrow")
    for table in rows.iter(batch_size=_TEXTS_AT_A_TIME):
        yield json.dumps(table.to_pylist(), default=str)


def _image_bytes(cell: Any) -> bytes:
    """The stored bytes of an image cell: embedded, from its file, or its pixels."""
    stored = cell.get("bytes") if isinstance(cell, Mapping) else None
    if stored is not None:
        return bytes(stored)
    path = cell.get("path") if isinstance(cell, Mapping) else cell
    if isinstance(path, str):
        return Path(path).read_bytes()
    pixels: bytes = cell.tobytes()
    return pixels
