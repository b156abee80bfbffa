"""Rows → a dataset folder: `data/SPLIT-00000-of-00002.parquet`, and `CONVERT.md` about what was left out."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from satlisa.convert.problems import Problems
from satlisa.convert.scene import Scene
from satlisa.convert.splits import SPLITS
from satlisa.data.coordinates import Reading
from satlisa.data.rows import read_text
from satlisa.errors import SatlisaError
from satlisa.runtime.atomic_files import atomic_replace
from satlisa.runtime.locations import check_writable, writing_to

REPORT_FILE = "CONVERT.md"
LARGEST_SHARD = 480_000_000  # bytes before compression; files are of 500 MB at most
_ROW_GROUP = 32_000_000  # bytes that a reader holds for one row
_FEATURES = datasets.Features(
    {
        "task": datasets.Value("string"),
        "source": datasets.Value("string"),
        "image": datasets.Image(),
        "conversations": datasets.Value("string"),
        "metadata": datasets.Value("string"),
    }
)
Ask = Callable[[Scene], Iterator[dict[str, Any]]]


def check_output(folder: Path, overwrite: bool) -> None:
    """Refuse to write where something lies, unless it is an earlier conversion and the user says so.

    Raises:
        SatlisaError: says what lies there.
    """
    check_writable(folder, "OUT")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not overwrite:
        raise SatlisaError(f"OUT: {folder} is not empty; name another folder, or replace its dataset with --overwrite")
    if not (folder / REPORT_FILE).is_file():
        raise SatlisaError(f"OUT: {folder} holds no {REPORT_FILE}, so it is not replaced; name another folder")


def write_dataset(folder: Path, scenes: Sequence[Scene], ask: Ask, problems: Problems, about: str) -> Counter[str]:
    """Write the rows of all scenes, atomically; an earlier conversion in the folder is replaced.

    Args:
        about: the first lines of the report.

    Returns:
        The number of rows by split and task: "train: building_segmentation".

    Raises:
        SatlisaError: no rows, or a row that training would refuse.
    """
    counts: Counter[str] = Counter()

    def write(temporary: Path) -> None:
        (temporary / "data").mkdir(parents=True)
        for split in SPLITS:
            rows = (row for scene in scenes if scene.split == split for row in _rows_of(scene, ask))
            _write_split(temporary / "data", split, rows, counts)
        if not counts:
            found = "; ".join(problems.summary()) or "no images"
            raise SatlisaError(f"nothing to convert: {found}")
        lines = [about, "", "| split: task | rows |", "|---|---:|"]
        lines += [f"| {name} | {count:,} |" for name, count in counts.items()]
        text = "\n".join([*lines, "", *problems.listing()])
        (temporary / REPORT_FILE).write_text(text, encoding="utf-8")

    with writing_to(folder, "OUT"):
        atomic_replace(folder, write, ours=lambda name: name in ("data", REPORT_FILE))
    return counts


def _rows_of(scene: Scene, ask: Ask) -> Iterator[dict[str, Any]]:
    """The rows of a scene, read as training reads them.

    Raises:
        SatlisaError: a row that training would refuse.
    """
    content = None
    for row in ask(scene):
        picture = scene.picture
        how = Reading(size=picture.upright, orientation=picture.orientation)
        try:
            read_text(row, 0, (), how)
        except ValueError as error:
            raise SatlisaError(f"{scene.name}: {error}") from error
        content = content or picture.content()
        if len(content) > LARGEST_SHARD:
            raise SatlisaError(f"{scene.name}: {len(content):,} bytes; at most {LARGEST_SHARD:,} fit into a file")
        yield {**row, "image": {"bytes": content, "path": picture.path.name}}


def _write_split(folder: Path, split: str, rows: Iterator[dict[str, Any]], counts: Counter[str]) -> None:
    """Write a split in as many files as it takes; none for no rows."""
    paths: list[Path] = []
    for shard in _shards(rows):
        paths.append(folder / f"{split}-{len(paths):05}")
        with pq.ParquetWriter(paths[-1], _FEATURES.arrow_schema) as writer:
            for group in shard:
                writer.write_table(pa.Table.from_pylist(group, schema=_FEATURES.arrow_schema))
                counts.update(f"{split}: {row['task']}" for row in group)
    for path in paths:
        path.rename(f"{path}-of-{len(paths):05}.parquet")


def _shards(rows: Iterator[dict[str, Any]]) -> Iterator[Iterator[list[dict[str, Any]]]]:
    """Rows in groups, and groups in files; both by bytes."""
    groups = _groups(rows)
    upcoming = next(groups, None)

    def shard() -> Iterator[list[dict[str, Any]]]:
        nonlocal upcoming
        total = 0
        while upcoming is not None and (not total or total + upcoming[1] <= LARGEST_SHARD):
            total += upcoming[1]
            group, upcoming = upcoming[0], next(groups, None)
            yield group

    while upcoming is not None:
        yield shard()


def _groups(rows: Iterator[dict[str, Any]]) -> Iterator[tuple[list[dict[str, Any]], int]]:
    group: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        more = _bytes_of(row)
        if group and size + more > _ROW_GROUP:
            yield group, size
            group, size = [], 0
        group.append(row)
        size += more
    if group:
        yield group, size


def _bytes_of(row: Mapping[str, Any]) -> int:
    texts = sum(len(row[name].encode()) for name in ("task", "source", "conversations", "metadata"))
    return texts + len(row["image"]["bytes"]) + 64
