"""The files of an evaluation: REPORT.md, results.json and images/.

Pictures stand side by side in Markdown tables. `<img width>` is the only HTML: Markdown cannot limit a picture's width,
and GitHub and VS Code both allow it. All text from models and datasets is escaped.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from satlisa.errors import SatlisaError
from satlisa.evaluation.metrics import summarise
from satlisa.geometry.overlay import draw_overlay

REPORT_FILE = "REPORT.md"
RESULTS_FILE = "results.json"
IMAGE_FOLDER = "images"
_WIDTH = 190  # of a picture, in CSS pixels: four fit side by side on GitHub
_MAX_TEXT = 600  # characters of a prompt or an answer in a table cell
_MAX_ERRORS = 100  # rows of a task's error table
Results = Mapping[str, Any]
Entry = Mapping[str, Any]
Pictures = tuple[Image.Image, np.ndarray | None, np.ndarray | None]


def write_report(results: Results, folder: Path) -> None:
    """Write results.json and REPORT.md; `save_pictures` has written the pictures."""
    # Lone surrogates in a dataset's text have no UTF-8; backslashreplace writes them as JSON's own \udXXX.
    text = json.dumps(results, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    (folder / RESULTS_FILE).write_text(text, encoding="utf-8", errors="backslashreplace")
    (folder / REPORT_FILE).write_text(render(results), encoding="utf-8", errors="replace")


def read_results(path: str | Path) -> dict[str, Any]:
    """The content of a results.json.

    Raises:
        SatlisaError: it does not exist, is not JSON, or lacks settings, tasks or samples.
    """
    try:
        results = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SatlisaError(f"{path}: not a readable {RESULTS_FILE} ({error})") from error
    if not isinstance(results, dict) or not {"settings", "tasks", "samples"} <= results.keys():
        raise SatlisaError(f"{path}: expected an object with settings, tasks and samples")
    return results


def save_pictures(
    folder: Path, number: int, image: Image.Image, truth: np.ndarray | None, prediction: np.ndarray | None
) -> dict[str, str]:
    """Write the pictures of a sample at the image's own size, masks as 0/255.

    Args:
        folder: the report's image folder.
        number: the sample's number in the report.
        truth, prediction: (H, W) bool, or None for a sample without masks.

    Returns:
        Paths relative to the report, by kind: input, and with masks gt_mask, pred_mask and overlay.
    """
    pictures = {"input": image}
    if truth is not None and prediction is not None:
        pictures["gt_mask"] = Image.fromarray(truth).convert("L")
        pictures["pred_mask"] = Image.fromarray(prediction).convert("L")
        pictures["overlay"] = draw_overlay(image, truth, prediction)
    paths = {}
    for kind, picture in pictures.items():
        name = f"sample_{number:03d}_{kind}.png"
        picture.save(folder / name)
        paths[kind] = f"{IMAGE_FOLDER}/{name}"
    return paths


def headline(results: Results) -> list[str]:
    """Three lines for the main scores: masks, judged answers, and use of `<SEG>`."""
    answered = [entry for entry in results["samples"] if entry["error"] is None]
    scores = summarise(answered)
    drawn = {
        kind: summarise(entry for entry in answered if (entry["expected_segs"] > 0) == wanted)["seg_rate"]
        for kind, wanted in (("masks", True), ("text", False))
    }
    return [
        f"Masks: gIoU {_number(scores['giou'])}, cIoU {_number(scores['ciou'])} of {scores['masks']} samples",
        f"Classes and yes/no: {_percent(scores['accuracy'])} right of {scores['judged']} answers",
        f"<SEG>: in {_percent(drawn['masks'])} of the answers that need a mask, "
        f"in {_percent(drawn['text'])} of the others",
    ]


def plain_table(results: Results) -> str:
    """The summary for a terminal, in aligned columns."""
    rows = _summary_rows(results)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )


def _summary_rows(results: Results) -> list[list[str]]:
    """The summary as rows of cells; the first is the header."""
    columns: dict[str, tuple[str, Callable[[Any], str]]] = {
        "Samples": ("samples", str),
        "Errors": ("errors", str),
        "Mean IoU": ("mean_iou", _number),
        "cIoU": ("ciou", _number),
        "Accuracy": ("accuracy", _percent),
        "Judged": ("judged", lambda count: str(count or "–")),
        "Exact match": ("exact_match", _percent),
        "<SEG>": ("seg_rate", _percent),
    }
    tasks = results["tasks"].items()
    return [["Task", *columns], *([task, *(write(s[key]) for key, write in columns.values())] for task, s in tasks)]


def render(results: Results) -> str:
    """The text of REPORT.md."""
    settings = results["settings"]
    subject = f"{settings.get('model_dir', '')} on {settings.get('dataset', '')}, {settings.get('split', '')} split"
    lines = [
        f"# Evaluation: {escape(subject)}",
        "",
        *(
            f"- **{escape(key)}:** {escape(value)}"
            for key, value in (line.split(": ", 1) for line in headline(results))
        ),
        "",
        "## Summary",
        "",
        *_markdown_table([[escape(cell) for cell in row] for row in _summary_rows(results)], numbers=True),
        "",
        "Mean IoU is gIoU, the mean over samples (1.0 where truth and prediction are both empty); cIoU is "
        "the sum of intersections over the sum of unions. Accuracy is over the answers that can be judged: "
        "scene classes and yes/no; exact match is over all text answers, words only; `<SEG>` is the share of "
        "answers that hold it. Errors are samples that could not be read or answered; they have no score. "
        "Overlays show the prediction in orange and the outline of the truth in cyan.",
        "",
        "## Settings",
        "",
        *_markdown_table([["Setting", "Value"], *([escape(k), escape(_plain(v) or "–")] for k, v in settings.items())]),
    ]
    for task in results["tasks"]:
        lines += ["", *_task_section(task, [entry for entry in results["samples"] if entry["task"] == task])]
    return "\n".join(lines) + "\n"


def _task_section(task: str, entries: Sequence[Entry]) -> list[str]:
    """The samples of a task that have pictures, its errors, and the number of samples not shown."""
    shown = [entry for entry in entries if entry["images"]]
    errors = [entry for entry in entries if entry["error"] is not None]
    lines = [f"## {escape(task)}", ""]
    for entry in shown:
        lines += [*_sample_section(entry), ""]
    if errors:
        rows = [[str(e["index"]), escape(e["prompt"] or "–"), escape(e["error"])] for e in errors[:_MAX_ERRORS]]
        more = f", the first {_MAX_ERRORS} of them here" if len(errors) > _MAX_ERRORS else ""
        lines += [f"### Errors: {len(errors)}{more}", "", *_markdown_table([["Row", "Prompt", "Error"], *rows]), ""]
    hidden = len(entries) - len(shown) - len(errors)
    if hidden or len(errors) > _MAX_ERRORS:
        lines += [f"Scored but not shown here: {hidden} samples; {RESULTS_FILE} has every one.", ""]
    return lines[:-1]


def _sample_section(entry: Entry) -> list[str]:
    """One sample: its pictures, its prompt, the expected answer and the model's."""
    images, number = entry["images"], entry["number"]
    source = f" · {escape(entry['source'])}" if entry["source"] else ""
    kinds = {"input": "Input", "gt_mask": "Ground truth", "pred_mask": "Prediction", "overlay": "Overlay"}
    shown = {kind: title for kind, title in kinds.items() if kind in images}
    pictures = [
        f'<img src="{images[kind]}" alt="{title} of sample {number}" width="{_WIDTH}">' for kind, title in shown.items()
    ]
    texts = {name.capitalize(): escape(entry[name] or "–") for name in ("prompt", "expected", "output")}
    if entry["iou"] is not None:
        texts["IoU"] = _number(entry["iou"])
    if entry["correct"] is not None:
        texts["Verdict"] = "✅ right" if entry["correct"] else "❌ wrong"
    return [
        f"### Sample {number:03d} · row {entry['index']}{source}",
        "",
        *_markdown_table([list(shown.values()), pictures]),
        "",
        *_markdown_table([list(texts), list(texts.values())]),
    ]


def _markdown_table(rows: Sequence[Sequence[str]], *, numbers: bool = False) -> list[str]:
    """The lines of a table of escaped cells; with `numbers`, all columns but the first are right-aligned."""
    rules = ["---", *["---:" if numbers else "---"] * (len(rows[0]) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (rows[0], rules, *rows[1:])]


def escape(text: str) -> str:
    """One line of Markdown that shows exactly this text, truncated after `_MAX_TEXT` characters.

    Repeated `<SEG>` are counted (`<SEG> ×12`); white space becomes single spaces.
    """
    text = re.sub(r"<SEG>(?:\s*<SEG>)+", lambda run: f"<SEG> ×{run[0].count('<SEG>')}", text)
    text = " ".join(re.sub(r"[\x00-\x08\x0e-\x1f\x7f]", "\ufffd", text).split())
    if len(text) > _MAX_TEXT:
        text = text[: _MAX_TEXT - 1].rstrip() + "…"
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]#|~$])", r"\\\1", text)


def _plain(value: Any) -> str:
    """The value of a setting as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"
