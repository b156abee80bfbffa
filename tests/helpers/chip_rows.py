"""Rows of real pictures for pretraining, in small."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image


def write_rows(folder: Path, rows: Sequence[tuple[str, str, str, dict[str, Any], str]]) -> None:
    """A split as an image folder; rows are task, question, answer, metadata and the colour of a picture of 64×48."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for number, (task, question, answer, metadata, colour) in enumerate(rows):
        Image.new("RGB", (64, 48), colour).save(folder / "images" / f"{number}.png")
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        lines.append(
            {
                "file_name": f"images/{number}.png",
                "task": task,
                "source": "test",
                "conversations": json.dumps(turns),
                "metadata": json.dumps(metadata),
            }
        )
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
