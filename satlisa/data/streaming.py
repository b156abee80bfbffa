"""Datasets as streams: rows come one after the other, and neither memory nor disk need hold them all."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet

from satlisa.data.dataset import load_rows, open_split
from satlisa.data.dataset_paths import ImagePaths
from satlisa.data.sampler import IndexedOrder, Order, StreamedOrder
from satlisa.errors import SatlisaError, first_line
from satlisa.runtime.locations import existing_place

logger = logging.getLogger(__name__)

_AT_A_TIME = 16  # rows that `datasets` hands over


@dataclass(frozen=True)
class StreamedRows:
    """A streaming dataset: iterable as often as wanted, from any row on.

    Attributes:
        source: of `datasets`; its images not decoded.
        paths: where images may lie.
        name: the dataset's, for messages.
        first: rows left out at the beginning.
    """

    source: Any
    paths: ImagePaths
    name: str
    first: int = 0

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """The rows.

        Raises:
            SatlisaError: the files are damaged or out of reach; what comes behind cannot be read.
        """
        number = self.first
        try:
            # `iter`, because plain iteration shares the rows out among loader processes, each of which needs them all.
            for columns in (self.source.skip(number) if number else self.source).iter(batch_size=_AT_A_TIME):
                checked = self.paths(columns)
                for place in range(len(checked["image"])):
                    yield {name: values[place] for name, values in checked.items()}
                    number += 1
        except (OSError, ValueError, RuntimeError) as error:  # pyarrow's errors are ValueErrors and OSErrors
            raise SatlisaError(
                f"dataset {self.name}: the stream breaks off behind row {number} ({first_line(error)}); "
                "check its files or the connection, and run the same command again to go on"
            ) from error

    def skip(self, count: int) -> "StreamedRows":
        """The rows behind the first `count`."""
        return StreamedRows(self.source, self.paths, self.name, self.first + count)


def open_stream(dataset: str, split: str, limit: int = 0, buffer: int = 1, seed: int | None = None) -> Order:
    """A split as a stream, in order. The demo draws its rows, and what `save_to_disk` wrote is read in place: these are
    in no memory anyway, and shuffled as a whole.

    Args:
        dataset, split: names, as for `dataset.load_rows`.
        limit: take only the first rows; 0: all.
        buffer: so many rows are shuffled together.
        seed: of their order; None keeps it.

    Raises:
        SatlisaError: nothing there, columns missing, or a number of rows that cannot be known.
    """
    if dataset == "demo":
        return IndexedOrder(load_rows(dataset, split), limit, seed)
    files: dict[str, list[str]] = {}

    def load(builder: Any) -> dict[str, Any]:
        files.update(builder.config.data_files or {})
        streams = builder.as_streaming_dataset()
        return {name: stream._resolve_features() for name, stream in streams.items()}

    found = open_split(dataset, split, load)
    if isinstance(found, datasets.Dataset):
        return IndexedOrder(load_rows(dataset, split), limit, seed)
    rows = StreamedRows(found, ImagePaths.of(dataset, existing_place(dataset)), dataset)
    return StreamedOrder(rows, _count(rows, files.get(str(found.split), []), limit), buffer, seed)


def _count(rows: StreamedRows, files: list[str], limit: int) -> int:
    """How many rows there are to take: as the dataset's card says, or as the files do."""
    info = (rows.source.info.splits or {}).get(str(rows.source.split))
    if info is not None and info.num_examples:
        known = int(info.num_examples)
    elif files and all(name.endswith(".parquet") and Path(name).is_file() for name in files):
        known = sum(pyarrow.parquet.read_metadata(name).num_rows for name in files)
    elif files and all(Path(name).is_file() for name in files):
        logger.info("dataset %s: its rows are counted, which reads it once", rows.name)
        known = sum(1 for _ in rows)
    elif limit:
        return limit
    else:
        raise SatlisaError(
            f"dataset {rows.name}: STREAMING=1 needs to know how many rows it has, and nothing says so; "
            "set MAX_SAMPLES to the number of rows that an epoch is to have"
        )
    return min(known, limit) if limit else known
