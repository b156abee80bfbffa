"""What must be the same for a run to go on: the settings, the model and the rows that decide its result."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets

from satlisa.config import ModelConfig
from satlisa.data.dataset import COLUMNS
from satlisa.data.sampler import IndexedOrder, Order
from satlisa.errors import SatlisaError, first_line
from satlisa.runtime.atomic_files import existing_folder
from satlisa.training.settings import TrainConfig

# What decides a run's result. The others (workers, cache, trackers, …) may change from one start to the next.
_DECISIVE = (
    "preset", "max_samples", "epochs", "max_steps", "learning_rate", "warmup_ratio", "weight_decay", "max_grad_norm",
    "precision", "seed", "seg_tasks", "streaming", "shuffle_buffer",
)  # fmt: skip
_TEXTS = [column for column in COLUMNS if column != "image"]
_SOME_ROWS = 8  # whose images are looked at, and of a stream the texts too
_TEXTS_AT_A_TIME = 1000
_PROBES, _PROBE = 64, 2**16  # places in a model's file that are looked at, and bytes there
_MOST_SHOWN = 6

Identity = dict[str, Any]


def identify(settings: TrainConfig, config: ModelConfig, order: Order) -> Identity:
    """JSON values by the names that a user knows.

    BATCH_SIZE and GRAD_ACCUM count as their product, which is what a step depends on. Local folders count by what is in
    them and not by where they are, so that a run goes on from a copy on a faster disk.
    """
    found: Identity = {name.upper(): getattr(settings, name) for name in _DECISIVE}
    found["BATCH_SIZE × GRAD_ACCUM"] = settings.batch_size * settings.grad_accum
    found["DATASET"] = "a folder" if Path(config.dataset).is_absolute() else config.dataset
    found |= {"DATASET rows": len(order), "DATASET contents": rows_key(order)}
    for key, value in config.to_dict().items():
        if key in ("vlm_model_id", "sam_model_id"):
            value = _files_key(folder) if (folder := existing_folder(value)) else value
        if key != "dataset":
            found[f"model_config.json {key}"] = value
    as_read: Identity = json.loads(json.dumps(found, default=str))  # as it comes back from a file
    return as_read


def differences(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The settings in which two runs differ, in words; "" where there are none."""
    missing = "nothing"
    found = [
        f"{name} was {known.get(name, missing)!r}, is {wanted.get(name, missing)!r}"
        for name in sorted({*known, *wanted})
        if known.get(name, missing) != wanted.get(name, missing)
    ]
    more = [f"and {len(found) - _MOST_SHOWN} more"] if len(found) > _MOST_SHOWN else []
    return "; ".join([*found[:_MOST_SHOWN], *more])


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


def _files_key(folder: Path) -> str:
    """A hash of a folder's files: their names and sizes, and what stands in some places of them.

    Raises:
        SatlisaError: one cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            size = path.stat().st_size
            digest.update(f"{path.name} {size}\n".encode(errors="surrogatepass"))
            with open(path, "rb") as file:
                for number in range(_PROBES):
                    file.seek(max(0, size - _PROBE) * number // (_PROBES - 1))
                    digest.update(file.read(_PROBE))
    except OSError as error:
        raise SatlisaError(f"{folder}: cannot be read ({first_line(error)})") from error
    return f"folder {digest.hexdigest()[:16]}"
