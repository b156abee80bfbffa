"""Rows of real pictures for pretraining, in small."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.helpers.dataset_fixtures import make_row, png

RED, BLUE = (255, 0, 0), (0, 0, 255)


def write_rows(folder: Path, rows: Sequence[tuple[str, str, str, dict[str, Any], tuple[int, int, int]]]) -> None:
    """A split as an image folder; rows are task, question, answer, metadata and the colour of a picture of 64×48."""
    folder.mkdir(parents=True)
    lines = []
    for number, (task, question, answer, metadata, colour) in enumerate(rows):
        (folder / f"{number}.png").write_bytes(png(colour))
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        row = make_row(task, conversations=json.dumps(turns), metadata=json.dumps(metadata), file_name=f"{number}.png")
        del row["image"]
        lines.append(json.dumps(row))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
