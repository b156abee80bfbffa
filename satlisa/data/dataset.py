"""From a dataset's name to rows, and from a row to a `Sample`.

Images stay encoded until a row is read. A row that cannot be read is a `RowError`; training counts them in `Skips`.
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

import datasets
import numpy as np

from satlisa.config import is_hub_id
from satlisa.data.conversations import parse_turns, says_seg, split_answer, take_coordinates
from satlisa.data.dataset_paths import REFUSED, ImagePaths, check_saved, open_builder
from satlisa.data.images import open_image
from satlisa.data.json_cells import describe, parse_cell
from satlisa.data.polygons import POLYGON_KEYS, find_outline, find_regions, reading_order
from satlisa.data.sample import Region, RowError, Sample
from satlisa.errors import SatlisaError, first_line
from satlisa.geometry.raster import covered_pixels
from satlisa.runtime.atomic_files import existing_place

COLUMNS = ("task", "source", "image", "conversations", "metadata")
_VALIDATION = ("validation", "val", "valid", "dev")
_ELSEWHERE = "use a local folder (DATASET=path/to/folder) or the built-in demo (PRESET=demo)"
_AREA_SIDE = 1024  # areas are counted with the longest side at SAM's input size, the finest that training sees


class SplitError(SatlisaError):
    """A dataset that can be read and lacks the split that was asked for."""


class Rows(Protocol):
    """A split: `len(rows)`, `rows[i]` a row as a dict with `COLUMNS`, `rows["task"]` a whole column."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...


def load_rows(dataset: str, split: str) -> Rows:
    """A split of a dataset, its images not decoded.

    Args:
        dataset: "demo", a local folder (`data/*.parquet`, whatever else `datasets` reads from a folder, or what its
            `save_to_disk` wrote), or a hub id.
        split: its name; validation also answers to val, valid and dev.

    Raises:
        SatlisaError: nothing there, the hub out of reach, or a split or columns missing.
    """
    if dataset == "demo":
        from satlisa.data.synthetic.rows import demo_rows

        return demo_rows("validation" if split in _VALIDATION else split)
    found = open_split(dataset, split, _prepare)
    rows: Rows = found.with_transform(ImagePaths.of(dataset, existing_place(dataset)))
    return rows


def check_hub_dataset(dataset: str, source: str) -> None:
    """Refuse a dataset, named by somebody's file, that would be read from this machine.

    Raises:
        SatlisaError: a path, an address, or the name of a folder here.
    """
    if dataset != "demo" and (not is_hub_id(dataset) or existing_place(dataset) is not None):
        raise SatlisaError(
            f"{source}: '{dataset}' is no dataset of the hub, and a downloaded model may only name what is there; "
            "choose one with --dataset"
        )


def open_split(dataset: str, split: str, load: Callable[[Any], Any]) -> Any:
    """A split with its columns checked and its images left as {"bytes", "path"}, not yet held against `ImagePaths`.

    Args:
        dataset, split: names, as for `load_rows`; not "demo".
        load: makes splits of a builder of `datasets`; what `save_to_disk` wrote needs none.

    Raises:
        SatlisaError: as `load_rows`.
    """
    folder = existing_place(dataset)
    splits = _load_hub(dataset, load) if folder is None else _load_folder(folder, load)
    return _without_decoding(_choose_split(splits, split, dataset), dataset)


def _load_folder(folder: Path, load: Callable[[Any], Any]) -> Any:
    if not folder.is_dir():
        raise SatlisaError(f"dataset {folder}: expected a folder, found a file; give the folder that holds it")
    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            check_saved(folder)
            return _as_splits(datasets.load_from_disk(str(folder)))
        return load(open_builder(str(folder), folder))
    except SatlisaError:
        raise
    except Exception as error:  # whatever the readers of parquet, json, csv, ... raise for damaged files
        raise SatlisaError(
            f"dataset {folder}: cannot be read as a dataset folder ({first_line(error)}); "
            "expected for example data/train-00000-of-00001.parquet"
        ) from error


def _prepare(builder: Any) -> datasets.DatasetDict:
    """All splits; converted copies go to the cache of `datasets`."""
    builder.download_and_prepare()
    return builder.as_dataset()


def _load_hub(dataset: str, load: Callable[[Any], Any]) -> Any:
    if dataset.startswith((".", "/", "~")) or dataset.count("/") > 1:
        here = Path.cwd()
        raise SatlisaError(f"dataset {dataset}: no such folder (current folder: {here}); check it, or {_ELSEWHERE}")
    try:
        return load(open_builder(dataset, None))
    except SatlisaError:
        raise
    except datasets.exceptions.DatasetNotFoundError as error:
        raise SatlisaError(
            f"dataset {dataset}: neither a local folder nor found on the Hugging Face hub; check its name, "
            f"log in if it is private, or {_ELSEWHERE}"
        ) from error
    except ConnectionError as error:
        raise SatlisaError(
            f"dataset {dataset}: no such local folder, and the Hugging Face hub cannot be reached "
            f"({first_line(error)}); check the connection, or {_ELSEWHERE}"
        ) from error
    except Exception as error:  # HTTP errors, damaged downloads, loading scripts, a full disk, ...
        raise SatlisaError(f"dataset {dataset}: cannot be loaded ({first_line(error)}); or {_ELSEWHERE}") from error


def _as_splits(loaded: Any) -> datasets.DatasetDict:
    if isinstance(loaded, datasets.Dataset):
        return datasets.DatasetDict({str(loaded.split or "train"): loaded})
    return loaded


def _choose_split(splits: Any, split: str, dataset: str) -> Any:
    names = [split, *(_VALIDATION if split in _VALIDATION else ())]
    for name in names:
        if name in splits:
            return splits[name]
    raise SplitError(f"dataset {dataset}: no split {split!r}; it has {', '.join(splits)}")


def _without_decoding(rows: Any, dataset: str) -> Any:
    """Check the columns; leave images as {"bytes", "path"}."""
    names = rows.column_names or []
    missing = [column for column in COLUMNS if column not in names]
    if missing:
        raise SatlisaError(
            f"dataset {dataset}: no column {', '.join(missing)}; found {', '.join(names) or 'none'}; rename or add them"
        )
    if isinstance(rows.features["image"], datasets.Image):
        rows = rows.cast_column("image", datasets.Image(decode=False))
    return rows


def read_sample(
    row: Mapping[str, Any], index: int, *, max_instances: int = 32, seg_tasks: Collection[str] = ()
) -> Sample:
    """Read one row.

    A row is a segmentation row when it has polygons and its task says "segmentation" or is in `seg_tasks`. Its
    polygons come from the metadata, or where that has none from JSON in the answer; objects that have only a
    `bbox`/`box` count with its rectangle. A task that says "instance" has one region per object, any other one region
    of all polygons. Instances that cover nothing at `_AREA_SIDE` pixels get no region and are counted in `left_out`,
    as are the smallest ones beyond `max_instances`. Text rows keep their answer as it stands.

    Raises:
        RowError: names the row, the column and what was found there.
    """
    task = row.get("task")
    if not isinstance(task, str) or not task.strip():
        raise RowError(index, "task", f"is not a task's name: found {describe(task)}")
    metadata = _parse_metadata(row.get("metadata"), index)
    try:
        turns, answer = split_answer(parse_turns(row.get("conversations")))
    except ValueError as error:
        raise RowError(index, "conversations", str(error)) from error
    regions: list[Region] = []
    if "segmentation" in task.casefold() or task.casefold() in {name.casefold() for name in seg_tasks}:
        regions, column, text = _read_regions(metadata, answer, index)
        answer = text if regions else answer
    cell = row.get("image")
    if isinstance(cell, Mapping) and (refused := cell.get(REFUSED)):
        raise RowError(index, "image", refused)
    try:
        image = open_image(cell)  # type: ignore[arg-type]  # anything else is one of its errors
    except SatlisaError as error:
        raise RowError(index, "image", f"cannot be read: {error}") from error
    chosen, left_out = _choose_regions(regions, "instance" in task.casefold(), image.size, max_instances)
    if regions and not chosen:
        count = f"{len(regions)} polygon{'s' * (len(regions) != 1)}"
        raise RowError(index, column, f"holds {count}, none of which covers any of the image")
    if not chosen and not answer.strip():
        raise RowError(index, "conversations", "has an empty answer")
    if chosen and not answer:
        answer = "Here is the mask." if len(chosen) == 1 else "Here are the masks."
    source = row.get("source")
    source = source if isinstance(source, str) else "" if source is None else describe(source)
    return Sample(index, task, source, image, turns, answer, chosen, left_out)


def _parse_metadata(value: Any, index: int) -> Any:
    """Metadata as an object or a list; nothing, empty text and null are an empty object."""
    if isinstance(value, str) and not value.strip():
        return {}
    try:
        value = parse_cell(value)
    except ValueError as error:
        raise RowError(index, "metadata", str(error)) from error
    if value is None:
        return {}
    if not isinstance(value, Mapping | list):
        raise RowError(index, "metadata", f"is not a JSON object: found {describe(value)}")
    return value


def _read_regions(metadata: Any, answer: str, index: int) -> tuple[list[Region], str, str]:
    """All regions of a segmentation row, the column that holds them, and the answer without coordinates."""
    column = "metadata"
    try:
        regions = find_regions(metadata)
        column = "conversations"
        text, in_answer = take_coordinates(answer)
    except ValueError as error:
        raise RowError(index, column, str(error)) from error
    if not regions and not in_answer:
        _refuse_unread(metadata, answer, index)
    return (regions, "metadata", text) if regions else (in_answer, "conversations", text)


def _refuse_unread(metadata: Any, answer: str, index: int) -> None:
    """Polygons under a name that nobody told us must not turn a mask sample silently into a text sample."""
    if place := find_outline(metadata):
        expected = ", ".join(POLYGON_KEYS)
        raise RowError(index, "metadata", f"has polygons under `{place}`, expected them under one of {expected}")
    if says_seg(answer):
        raise RowError(index, "conversations", "has <SEG> in its answer, and the row has no polygons for it")


def _choose_regions(
    regions: list[Region], instances: bool, size: tuple[int, int], max_instances: int
) -> tuple[tuple[Region, ...], int]:
    """The regions that get a `<SEG>`, in reading order, and how many instances do not."""
    if not instances:
        regions = [tuple(ring for region in regions for ring in region)] if regions else []
    scale = _AREA_SIDE / max(size)
    width, height = (max(1, round(side * scale)) for side in size)
    areas = covered_pixels(regions, height, width)
    largest = np.argsort(-areas, kind="stable")[:max_instances]
    kept = [regions[place] for place in sorted(largest) if areas[place] > 0]
    return tuple(kept[place] for place in reading_order(kept)), len(regions) - len(kept)
