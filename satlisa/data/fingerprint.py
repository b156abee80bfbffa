"""Fingerprint of a dataset's rows."""

import glob
import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet
from huggingface_hub import HfFileSystem

from satlisa.data.dataset import COLUMNS
from satlisa.data.mixing import MixedSampler
from satlisa.data.sampler import IndexedSampler, Sampler, StreamingSampler
from satlisa.runtime.fingerprint import fingerprint_files

_TEXTS = [column for column in COLUMNS if column != "image"]
_SOME_ROWS = 8  # rows whose images are hashed; for a stream, their texts too
_TEXTS_AT_A_TIME = 1000
_WHOLE_FILE = 2**28  # bytes up to which every byte of a file of texts is hashed


def rows_key(sampler: Sampler) -> str:
    """Hash of all texts, if they can be read without the images, and of the images of a few rows."""
    if isinstance(sampler, MixedSampler):
        mixed = zip(sampler.source.sources, sampler.source.sizes, strict=True)
        return " ".join(rows_key(IndexedSampler(source, size)) for source, size in mixed)
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


def texts_key(sampler: Sampler) -> str | None:
    """Hash of all texts of a stream, without reading it as a stream: of parquet files the text columns, of other files
    their bytes (of large ones samples), on the hub the files' own hashes. None where there is none, as for other
    datasets, whose texts `rows_key` holds."""
    files = getattr(sampler.source, "files", ()) if isinstance(sampler, StreamingSampler) else ()
    digest = hashlib.sha256()
    try:
        for part in islice((part for file in files for part in _file_parts(file)), len(sampler)):
            digest.update(part)
    except Exception:  # damaged files, a hub that does not answer: training says so when it reads them
        return None
    return digest.hexdigest()[:16] if files else None


def _file_parts(file: str) -> Iterator[bytes]:
    """What identifies the texts of a file: of parquet one part a row, of other files one part."""
    path = Path(file)
    if not path.is_file():
        info = HfFileSystem().info(file)
        yield str((info.get("lfs") or {}).get("sha256") or info["blob_id"]).encode()
    elif path.suffix != ".parquet":
        is_small = path.stat().st_size <= _WHOLE_FILE
        yield fingerprint_files(path.parent, [glob.escape(path.name)], complete=is_small).encode()
    else:
        with pyarrow.parquet.ParquetFile(path) as opened:
            columns = [name for name in _TEXTS if name in opened.schema_arrow.names]
            for batch in opened.iter_batches(_TEXTS_AT_A_TIME, columns=columns):
                yield from (json.dumps(row, default=str).encode() for row in batch.to_pylist())


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
