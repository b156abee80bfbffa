"""All kinds of broken and odd rows, each with what is expected of it, and a folder of parquet files that holds them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Image, Value

from tests.helpers import broken_chats, broken_images, broken_polygons
from tests.helpers.row_cases import Case

BROKEN_ROWS: list[Case] = [*broken_images.CASES, *broken_chats.CASES, *broken_polygons.CASES]


def write_parquet(folder: Path, splits: dict[str, Sequence[dict[str, Any]]]) -> None:
    """Rows as a local dataset; `datasets` itself would refuse to write images without bytes and path."""
    (folder / "data").mkdir(parents=True)
    texts = dict.fromkeys(("task", "source", "conversations", "metadata"), Value("string"))
    schema = Features({**texts, "image": Image()}).arrow_schema
    for split, rows in splits.items():
        table = pa.Table.from_pylist(list(rows), schema=schema)
        pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
