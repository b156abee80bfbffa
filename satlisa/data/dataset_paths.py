"""Path checks: a dataset may refer only to files in its own folder or repository.

Datasets are untrusted. A README can point `datasets` at any URL or file, files can be symlinks, and rows name images by
path. Anything outside is refused before it is opened or fetched: a data file refuses the dataset, an image its row.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import datasets
import huggingface_hub
import yaml  # type: ignore[import-untyped]

from satlisa.data.image_cells import read_zipped, split_zip, unpack
from satlisa.errors import SatlisaError, redact

REFUSED = "refused"
"""Key that marks an image cell as refused; its value is the reason."""

MASK_COLUMNS = ("mask", "label", "segmentation_mask", "masks", "segmentation", "annotation")
"""Columns that may hold the image of a row's mask."""

_LONGEST_SHOWN = 200
_FILE_NAME = re.compile(r"[^\0]{1,4000}\.(?:png|tiff?|bmp|gif|webp|jpe?g|jp2)", re.IGNORECASE)
_YAML_FILE = ".huggingface.yaml"


def open_builder(dataset: str, folder: Path | None) -> Any:
    """The builder of `datasets` for a local folder or a hub repository, after checking that all its files are inside.

    Only settings are read here; `download_and_prepare` or `as_streaming_dataset` reads the data.

    Args:
        dataset: name in messages; the hub id if `folder` is None.

    Raises:
        SatlisaError: data files outside; `datasets` raises many other types.
    """
    if folder is not None:
        _check_settings(folder)
    # Absolute, because a bare name such as "json" selects one of the readers of `datasets`.
    builder = datasets.load_dataset_builder(os.path.abspath(folder) if folder is not None else dataset)
    for name in [name for names in (builder.config.data_files or {}).values() for name in names]:
        if folder is not None:
            _check_inside(Path(name), folder)
        elif not name.startswith(f"hf://datasets/{dataset}@"):
            raise SatlisaError(f"dataset {dataset}: {show(name)} is not one of its own files; it is not loaded")
    return builder


def check_saved(folder: Path) -> None:
    """Check the files that `load_from_disk` will read from the output of `save_to_disk`.

    Raises:
        SatlisaError: a file outside the folder; malformed JSON files raise other types.
    """
    for path in _saved_files(folder):
        _check_inside(path, folder)


def _saved_files(folder: Path) -> Iterator[Path]:
    """Yield each file before reading it, so that the caller checks it first."""
    index, splits = folder / "dataset_dict.json", [folder]
    if index.is_file():
        yield index
        splits = [folder / _own_name(name, index) for name in json.loads(index.read_text())["splits"]]
    for split in splits:
        yield split / "dataset_info.json"
        yield split / "state.json"
        for entry in json.loads((split / "state.json").read_text())["_data_files"]:
            yield split / _own_name(entry["filename"], split / "state.json")


def _check_settings(folder: Path) -> None:
    """Check the data paths in a folder's README and `.huggingface.yaml`, parsed as `datasets` parses them."""
    readme, beside = folder / "README.md", folder / _YAML_FILE
    for path in (readme, beside, folder / "dataset_infos.json"):
        _check_inside(path, folder)
    found = []
    if readme.is_file():
        found.append((readme, huggingface_hub.DatasetCard.load(readme).data.to_dict()))
    if beside.is_file():
        found.append((beside, yaml.safe_load(beside.read_text(encoding="utf-8")) or {}))
    for path, settings in found:
        for config in settings.get("configs") or []:
            for name in _texts([config.get("data_files"), config.get("data_dir")]):
                _own_name(name, path)


def _texts(value: Any) -> Iterator[str]:
    """All strings in nested lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _own_name(name: str, source: Path) -> str:
    """A relative path named in the file `source`; a URL or a path that may leave the folder is refused."""
    if _is_address(name) or name.startswith(("/", "\\", "~")) or ".." in re.split(r"[/\\]", name) or name[1:2] == ":":
        raise SatlisaError(f"{source} names {show(name)}; expected a path inside the dataset's folder")
    return name


def _is_address(name: str) -> bool:
    """Whether `datasets` would open a name through a network or archive file system."""
    return "::" in name or len(urlsplit(name).scheme) > 1


def own_folders(folder: Path) -> tuple[Path, ...]:
    """Folders that may hold a dataset's files: its own, and the blobs beside a snapshot of the hub cache."""
    folder = folder.resolve()
    blobs = folder.parent.parent / "blobs"  # not resolved: symlinked blobs count as outside
    return (folder, blobs) if folder.parent.name == "snapshots" else (folder,)


def _check_inside(path: Path, folder: Path) -> None:
    target = path.resolve()
    if not any(target.is_relative_to(root) for root in own_folders(folder)):
        kind = "a link to" if path.is_symlink() else "at"
        raise SatlisaError(
            f"dataset {folder}: {path} is {kind} {target}, outside of the dataset's folder; put the file itself there"
        )


def show(name: str) -> str:
    """A name from a dataset for a message: redacted, shortened, quoted."""
    shown = redact(name)
    return repr(shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}…")


@dataclass(frozen=True)
class ImagePaths:
    """Resolves the image paths of rows and refuses those outside the dataset. Embedded bytes pass unchanged.

    Attributes:
        roots: resolved folders that may hold images.
        folder: base of relative paths; None refuses them.
    """

    roots: tuple[Path, ...]
    folder: Path | None = None

    @classmethod
    def of(cls, dataset: str, folder: Path | None) -> "ImagePaths":
        """The rule for a local dataset (its folder) or a hub dataset (its downloaded files)."""
        if folder is not None:
            return cls(own_folders(folder), folder)
        downloaded = Path(huggingface_hub.constants.HF_HUB_CACHE) / f"datasets--{dataset.replace('/', '--')}"
        return cls((Path(datasets.config.HF_DATASETS_CACHE).resolve(), downloaded.resolve()))

    def __call__(self, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Check a batch's image column; callable by `with_transform` and `map(batched=True)` of `datasets`."""
        checked = {name: [self.check(cell) for cell in columns[name]] for name in ("image",) if name in columns}
        for name in MASK_COLUMNS:
            if name in columns:
                checked[name] = [self.check(cell) if _may_be_file(cell) else cell for cell in columns[name]]
        return {**columns, **checked}

    def check(self, cell: Any) -> Any:
        """Check an image cell: base64 and members of the dataset's own archives become bytes; a refused one has
        `REFUSED` and neither bytes nor path."""
        try:
            cell = unpack(cell)
        except ValueError as error:
            return {"bytes": None, "path": None, REFUSED: str(error)}
        path = cell.get("path") if isinstance(cell, Mapping) and cell.get("bytes") is None else cell
        if not isinstance(path, str) or not path:
            return cell
        try:
            return {"bytes": None, "path": None} | self._find(path)
        except (OSError, ValueError, RuntimeError) as error:  # an invalid path, or a symlink loop
            reason = f"cannot be followed ({type(error).__name__})" if type(error) is not ValueError else str(error)
            return {"bytes": None, "path": None, REFUSED: f"path {show(path)} {reason}"}

    def _find(self, path: str) -> dict[str, Any]:
        """The path that is opened, or the bytes of an archive's member.

        Raises:
            ValueError: a path elsewhere; OSError, RuntimeError: one that cannot be followed.
        """
        if (zipped := split_zip(path)) and (archive := self._inside(zipped[1])).is_file():
            return {"bytes": read_zipped(archive, zipped[0])}
        if _is_address(path):
            raise ValueError("is an address, and nothing is fetched for a row; put the image into the dataset")
        if self.folder is None and not Path(path).is_absolute():
            raise ValueError("comes without bytes, and there is no folder that it could be in")
        found = self._inside(path)
        if "\\" in path and not found.exists():  # written on Windows
            found = self._inside(path.replace("\\", "/"))
        return {"path": str(found)}

    def _inside(self, path: str) -> Path:
        joined = Path(path) if self.folder is None else self.folder / path
        target = joined.resolve()
        if not any(target.is_relative_to(root) for root in self.roots):
            place = "the dataset's folder" if self.folder is not None else "what was downloaded of the dataset"
            raise ValueError(f"leads outside {place}")
        return joined


def _may_be_file(cell: Any) -> bool:
    """Whether the cell of a column that may hold masks is a file, and not a word or a list of polygons."""
    if isinstance(cell, Mapping):
        return "bytes" in cell or "path" in cell
    return isinstance(cell, str) and (_FILE_NAME.fullmatch(cell) is not None or cell.startswith(("zip://", "data:")))
