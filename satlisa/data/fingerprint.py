"""A hash of a dataset's rows."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets

from satlisa.data.dataset import COLUMNS
from satlisa.data.sampler import IndexedOrder, Order

_TEXTS = [column for column in COLUMNS if column != "image"]

_SOME_ROWS = 8  # whose images are looked at, and of a stream the texts too

_TEXTS_AT_A_TIME = 1000


def rows_key(order: Order) -> str:
    """A hash of the rows: of all texts, where they can be had without the images, and of some rows' images."""
    digest = hashlib.sha256()
    try:
        for text in _all_texts(order):
            digest.update(text.encode(errors="surrogatepass"))
    except Exception:  # damaged files; see below
        digest.update(b"damaged")
    for row in order.some(_SOME_ROWS):
        try:
            cells = row.fetch()
            parts = [json.dumps([str(cells.get(column)) for column in _TEXTS]).encode(), _image_bytes(cells["image"])]
        except Exception:  # a damaged row is met again in training, and counted there
            parts = [b"damaged"]
        for part in (str(row.index).encode(), *parts):
            digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]


def _all_texts(order: Order) -> Iterator[str]:
    """The texts of a table's rows, as JSON, some rows at a time; of other datasets nothing."""
    source = order.source if isinstance(order, IndexedOrder) else None
    if not isinstance(source, datasets.Dataset):
        return
    rows = source.select(range(len(order))).select_columns(_TEXTS).with_format("arrow")
    for table in rows.iter(batch_size=_TEXTS_AT_A_TIME):
        yield json.dumps(table.to_pylist(), default=str)


def _image_bytes(cell: Any) -> bytes:
    """An image cell as it is stored: bytes, a file, or pixels."""
    stored = cell.get("bytes") if isinstance(cell, Mapping) else None
    if stored is not None:
        return bytes(stored)
    path = cell.get("path") if isinstance(cell, Mapping) else cell
    if isinstance(path, str):
        return Path(path).read_bytes()
    pixels: bytes = cell.tobytes()
    return pixels
