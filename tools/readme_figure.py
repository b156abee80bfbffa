"""The README's picture: answers of an evaluation, with image, ground truth and prediction side by side.

    python -m tools.readme_figure demo_eval docs/answers.png

Each row is the sample with the median IoU of its task, not the best one; of instances, among the samples with several.
"""

import argparse
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from satlisa.errors import SatlisaError
from satlisa.evaluation.report import RESULTS_FILE, read_results

_SIDE, _GAP, _TEXT = 256, 8, 300  # pixels: a picture, the space between, the column of text
_KINDS = {"input": "image", "gt_mask": "ground truth", "pred_mask": "prediction", "overlay": "overlay"}
_OBJECTS = {"gt_mask": "gt_objects", "pred_mask": "pred_objects"}  # in colours, where objects are scored one by one


def median_entry(entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The sample with the median IoU among those with pictures and several expected masks, else with one."""
    pictured = [
        e for e in entries if e["iou"] is not None and _KINDS.keys() <= e["images"].keys() and e["expected_segs"]
    ]
    pictured = [e for e in pictured if e["expected_segs"] > 1] or pictured
    return sorted(pictured, key=lambda entry: (entry["iou"], entry["number"]))[len(pictured) // 2]


def draw(results: Mapping[str, Any], folder: Path) -> Image.Image:
    """One row per task with masks: prompt, answer and IoU, then its four pictures from `folder`/images."""
    tasks = [task for task, scores in results["tasks"].items() if scores["masks"]]
    if not tasks:
        raise SatlisaError(f"{folder}: no evaluated sample has a mask; evaluate a segmentation task first")
    height = 24 + len(tasks) * (_SIDE + _GAP)
    canvas = Image.new("RGB", (_TEXT + len(_KINDS) * (_SIDE + _GAP), height), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=15)
    for column, title in enumerate(_KINDS.values()):
        pen.text((_TEXT + column * (_SIDE + _GAP), 2), title, fill="black", font=font)
    for row, task in enumerate(tasks):
        entry = median_entry([e for e in results["samples"] if e["task"] == task])
        top = 24 + row * (_SIDE + _GAP)
        lines = [task, "", *textwrap.wrap(f"» {entry['prompt']}", 34), ""]
        lines += [
            *textwrap.wrap(f"« {entry['output']}", 34, max_lines=8, placeholder=" …"),
            "",
            f"IoU {entry['iou']:.2f} (median)",
        ]
        pen.text((6, top + 6), "\n".join(lines), fill="black", font=font)
        for column, kind in enumerate(_KINDS):
            path = entry["images"].get(_OBJECTS.get(kind, ""), entry["images"][kind])
            with Image.open(folder / path) as stored:
                picture = stored.convert("RGB")
            picture.thumbnail((_SIDE, _SIDE))
            canvas.paste(picture, (_TEXT + column * (_SIDE + _GAP), top))
    return canvas


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; exit code 2 for a usage error."""
    parser = argparse.ArgumentParser(prog="python -m tools.readme_figure", description=__doc__.splitlines()[0])
    parser.add_argument("evaluation", type=Path, help="output folder of infer_dataset.py")
    parser.add_argument("picture", type=Path, help="PNG to write")
    options = parser.parse_args(arguments)
    try:
        picture = draw(read_results(options.evaluation / RESULTS_FILE), options.evaluation)
        options.picture.parent.mkdir(parents=True, exist_ok=True)
        picture.save(options.picture)
    except (SatlisaError, OSError) as error:
        print(f"tools.readme_figure: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
