"""Open a split of a dataset by name; its images stay encoded until `rows.read_sample` reads a row."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Protocol

import datasets

from satlisa.data.dataset_paths import ImagePaths, check_saved, open_builder
from satlisa.errors import SatlisaError, first_line
from satlisa.runtime.locations import existing_place, is_hub_id

COLUMNS = ("task", "source", "image", "conversations", "metadata")
_OPTIONAL = ("source",)
_VALIDATION = ("validation", "val", "valid", "dev")
_ELSEWHERE = "use a local folder (DATASET=path/to/folder) or the built-in demo (PRESET=demo)"


class SplitError(SatlisaError):
    """The dataset is readable but lacks the requested split."""


class Rows(Protocol):
    """A split: `rows[i]` is a row, a dict with `COLUMNS`; `rows["task"]` is a column."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...


def load_rows(dataset: str, split: str) -> Rows:
    """Load a split of a dataset without decoding its images.

    Args:
        dataset: "demo", a hub id, or a local folder: `data/*.parquet`, another format that `datasets` reads from a
            folder, or the output of its `save_to_disk`.
        split: name of the split; "validation" also matches val, valid and dev.

    Raises:
        SatlisaError: dataset not found, hub unreachable, or a missing split or column.
    """
    if dataset == "demo":
        from satlisa.data.synthetic.rows import demo_rows

        return demo_rows("validation" if split in _VALIDATION else split)
    found = open_split(dataset, split, prepare)
    rows: Rows = found.with_transform(ImagePaths.of(dataset, existing_place(dataset)))
    return rows


def check_hub_dataset(dataset: str, source: str) -> None:
    """Refuse a dataset name from a downloaded file (`source`) unless it is "demo" or is read from the hub.

    Raises:
        SatlisaError: a path, a URL, or the name of an existing local folder.
    """
    if dataset != "demo" and (not is_hub_id(dataset) or existing_place(dataset) is not None):
        raise SatlisaError(
            f"{source}: '{dataset}' is not a hub dataset, and a downloaded model may only name hub datasets; "
            "choose one with --dataset"
        )


def open_split(dataset: str, split: str, load: Callable[[Any, str], Any]) -> Any:
    """A split with checked columns and undecoded images, {"bytes", "path"}; the caller applies `ImagePaths`.

    Args:
        dataset, split: as in `load_rows`, except "demo".
        load: makes a split from a builder of `datasets` and the split's name; unused for the output of `save_to_disk`.

    Raises:
        SatlisaError: as `load_rows`.
    """
    folder = existing_place(dataset)
    found = _load_hub(dataset, split, load) if folder is None else _load_folder(folder, split, load)
    return _without_decoding(found, dataset)


def _load_folder(folder: Path, split: str, load: Callable[[Any, str], Any]) -> Any:
    if not folder.is_dir():
        raise SatlisaError(f"dataset {folder}: expected a folder, found a file; give the folder that holds it")
    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            check_saved(folder)
            saved = datasets.load_from_disk(str(folder))
            splits = {str(saved.split or "train"): saved} if isinstance(saved, datasets.Dataset) else saved
            return splits[_choose_split(splits, split, str(folder))]
        builder = open_builder(str(folder), folder)
        return load(builder, _choose_split(builder.config.data_files or [split], split, str(folder)))
    except SatlisaError:
        raise
    except Exception as error:  # damaged files: the readers of parquet, json, csv, ... raise many types
        raise SatlisaError(
            f"dataset {folder}: cannot be read as a dataset folder ({first_line(error)}); "
            "expected for example data/train-00000-of-00001.parquet"
        ) from error


def prepare(builder: Any, split: str) -> datasets.Dataset:
    """A split, converted to Arrow files in the cache of `datasets`; the other splits are neither fetched nor converted.

    Files of all splits that were converted earlier are used.
    """
    files = builder.config.data_files
    if files and len(files) > 1 and not (Path(builder.cache_dir) / "dataset_info.json").is_file():
        info = builder.info.copy()
        info.splits = None  # sizes that are known of the other splits would be missed
        builder = type(builder)(
            dataset_name=builder.dataset_name,
            config_name=builder.config.name,
            hash=builder.hash,
            base_path=builder.base_path,
            info=info,
            token=builder.token,
            repo_id=builder.repo_id,
            data_files=datasets.data_files.DataFilesDict({split: files[split]}),
            storage_options=builder.storage_options,
        )
    builder.download_and_prepare()
    converted: datasets.Dataset = builder.as_dataset()[split]
    return converted


def _load_hub(dataset: str, split: str, load: Callable[[Any, str], Any]) -> Any:
    if dataset.startswith((".", "/", "~")) or dataset.count("/") > 1:
        here = Path.cwd()
        raise SatlisaError(f"dataset {dataset}: no such folder (current folder: {here}); check it, or {_ELSEWHERE}")
    try:
        builder = open_builder(dataset, None)
        return load(builder, _choose_split(builder.config.data_files or [split], split, dataset))
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


def _choose_split(splits: Collection[str], split: str, dataset: str) -> str:
    names: tuple[str, ...] = (split, *_VALIDATION) if split in _VALIDATION else (split,)
    for name in names:
        if name in splits:
            return name
    raise SplitError(f"dataset {dataset}: no split {split!r}; it has {', '.join(map(str, splits))}")


def _without_decoding(rows: Any, dataset: str) -> Any:
    """Check the columns and turn image decoding off."""
    names = rows.column_names or []
    missing = [column for column in COLUMNS if column not in names and column not in _OPTIONAL]
    if missing:
        raise SatlisaError(
            f"dataset {dataset}: no column {', '.join(missing)}; found {', '.join(names) or 'none'}; rename or add them"
        )
    for name in names:
        kind = rows.features[name] if rows.features else None
        if isinstance(kind, datasets.Image):
            rows = rows.cast_column(name, datasets.Image(decode=False))
        elif isinstance(kind, datasets.List) and isinstance(kind.feature, datasets.Image):
            rows = rows.cast_column(name, datasets.List(datasets.Image(decode=False)))
    return rows
