"""Streaming datasets: rows are read one after the other, so neither memory nor disk has to hold them all."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet

from satlisa.data.dataset import load_rows, open_split
from satlisa.data.dataset_paths import ImagePaths
from satlisa.data.sampler import IndexedSampler, Sampler, StreamingSampler
from satlisa.errors import SatlisaError, first_line
from satlisa.runtime.locations import existing_place

logger = logging.getLogger(__name__)

_AT_A_TIME = 16  # rows per batch read from `datasets`


@dataclass(frozen=True)
class StreamedRows:
    """A streaming dataset that can be iterated repeatedly, from any row on.

    Attributes:
        source: streaming dataset of `datasets`, its images not decoded.
        paths: resolves and checks image paths.
        name: dataset name for messages.
        first: number of rows skipped at the beginning.
        files: of the split, in order: paths, or addresses on the hub.
    """

    source: Any
    paths: ImagePaths
    name: str
    first: int = 0
    files: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """The rows.

        Raises:
            SatlisaError: files damaged or unreachable; the remaining rows cannot be read.
        """
        number = self.first
        try:
            # `.iter()`, because plain iteration splits the rows among loader workers, and each worker needs all.
            for columns in (self.source.skip(number) if number else self.source).iter(batch_size=_AT_A_TIME):
                checked = self.paths(columns)
                for place in range(len(checked["image"])):
                    yield {name: values[place] for name, values in checked.items()}
                    number += 1
        except (OSError, ValueError, RuntimeError) as error:  # pyarrow's errors are ValueErrors and OSErrors
            raise SatlisaError(
                f"dataset {self.name}: the stream failed after row {number} ({first_line(error)}); "
                "check its files or the connection, and run the same command again to resume"
            ) from error

    def skip(self, count: int) -> "StreamedRows":
        """The stream without its first `count` rows."""
        return replace(self, first=self.first + count)


def open_stream(dataset: str, split: str, limit: int = 0, buffer: int = 1, seed: int | None = None) -> Sampler:
    """Open a split as a stream.

    The demo and the output of `save_to_disk` are indexed and shuffled as a whole instead: the demo draws its rows when
    they are read, and saved files are memory-mapped, so neither is held in memory.

    Args:
        dataset, split: as in `dataset.load_rows`.
        limit: only the first rows are taken; 0: all.
        buffer: number of rows shuffled together.
        seed: of the shuffling; None keeps the order.

    Raises:
        SatlisaError: dataset not found, columns missing, or an unknown number of rows.
    """
    if dataset == "demo":
        return IndexedSampler(load_rows(dataset, split), limit, seed)
    files: dict[str, list[str]] = {}

    def load(builder: Any, name: str) -> Any:
        files.update(builder.config.data_files or {})
        return builder.as_streaming_dataset(split=name)._resolve_features()

    found = open_split(dataset, split, load)
    if isinstance(found, datasets.Dataset):
        return IndexedSampler(load_rows(dataset, split), limit, seed)
    of_split = tuple(files.get(str(found.split), ()))
    rows = StreamedRows(found, ImagePaths.of(dataset, existing_place(dataset)), dataset, files=of_split)
    return StreamingSampler(rows, _count(rows, limit), buffer, seed)


def _count(rows: StreamedRows, limit: int) -> int:
    """Number of rows to take, by the dataset card or by counting the rows of the files."""
    files = rows.files
    info = (rows.source.info.splits or {}).get(str(rows.source.split))
    if info is not None and info.num_examples:
        known = int(info.num_examples)
    elif files and all(name.endswith(".parquet") and Path(name).is_file() for name in files):
        known = sum(pyarrow.parquet.read_metadata(name).num_rows for name in files)
    elif files and all(Path(name).is_file() for name in files):
        logger.info("dataset %s: counting its rows, which reads it once", rows.name)
        known = sum(1 for _ in rows)
    elif limit:
        return limit
    else:
        raise SatlisaError(
            f"dataset {rows.name}: STREAMING=1 needs the number of rows, which is unknown; "
            "set MAX_SAMPLES to the number of rows per epoch"
        )
    return min(known, limit) if limit else known
