"""A table of answers → COCO's results format, and the images and categories that pycocotools needs with it.

A prompt is a category: what a mask shows, only the prompt says. The format has no place for text and errors, which stay
in the table.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from satlisa.errors import SatlisaError
from satlisa.inference.table import Row, read_rows
from satlisa.runtime.atomic_files import atomic_replace
from satlisa.runtime.locations import writing_to

_ABOUT = (
    "Masks by satlisa. A category is the prompt that was asked. A score is SAM's own guess at the IoU of its mask, "
    "which no loss of this model trains: it is no confidence."
)


def dataset_file(results: Path) -> Path:
    """The file of images and categories beside the results: results.dataset.json."""
    return results.with_name(f"{results.stem}.dataset.json")


def check_replaceable(results: Path) -> None:
    """Refuse to replace files that `write_coco` did not write.

    Raises:
        SatlisaError: names the file.
    """
    dataset = dataset_file(results)
    if not (results.exists() or dataset.exists()):
        return
    try:
        is_ours = json.loads(dataset.read_text(encoding="utf-8"))["info"]["description"] == _ABOUT
    except (OSError, ValueError, TypeError, KeyError):
        is_ours = False
    if not is_ours:
        found = results if results.exists() else dataset
        raise SatlisaError(f"--output: {found} exists and is not of an earlier run; name another file")


def write_coco(table: Path, prompts: Sequence[str], results: Path) -> int:
    """Write the results, and `dataset_file` beside them; returns the number of masks.

    The results are a list of {image_id, category_id, segmentation, bbox, score}. `image_id` counts the images of the
    table in its order, `category_id` the prompts, both from 1. Images without any answer are left out.
    """
    images, count = _images(table), 0
    numbers = {image["file_name"]: image["id"] for image in images}
    categories = [{"id": n, "name": prompt, "supercategory": "prompt"} for n, prompt in enumerate(prompts, 1)]
    dataset = {"info": {"description": _ABOUT, "table": table.name}, "images": images, "categories": categories}
    text = json.dumps(dataset | {"annotations": []}, indent=1)

    def entries() -> Iterator[dict[str, Any]]:
        nonlocal count
        for row in read_rows(table):
            for entry in _entries(row, numbers, prompts):
                count += 1
                yield entry

    with writing_to(results, "--output"):
        atomic_replace(dataset_file(results), lambda path: path.write_text(text, encoding="utf-8"))
        atomic_replace(results, _list_writer(entries))
    return count


def _images(table: Path) -> list[dict[str, Any]]:
    sizes = {row["image"]: (row["width"], row["height"]) for row in read_rows(table) if row["error"] is None}
    return [
        {"id": number, "file_name": image, "width": width, "height": height}
        for number, (image, (width, height)) in enumerate(sizes.items(), 1)
    ]


def _entries(row: Row, numbers: dict[str, int], prompts: Sequence[str]) -> Iterator[dict[str, Any]]:
    for mask, box, score in zip(row["masks"], row["boxes"], row["scores"], strict=True):
        yield {
            "image_id": numbers[row["image"]],
            "category_id": prompts.index(row["prompt"]) + 1,
            "segmentation": mask,
            "bbox": box,
            "score": 0.0 if score is None else score,  # COCO's tools sort by it
        }


def _list_writer(entries: Callable[[], Iterator[dict[str, Any]]]) -> Callable[[Path], None]:
    """What writes a JSON list, an entry a line, without holding it."""

    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8") as file:
            file.write("[")
            for number, entry in enumerate(entries()):
                file.write(("," if number else "") + "\n" + json.dumps(entry))
            file.write("\n]\n")

    return write
