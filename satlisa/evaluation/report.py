"""The files of an evaluation: REPORT.md, results.json and images/.

Pictures stand side by side in Markdown tables. `<img width>` is the only HTML: Markdown cannot limit a picture's width,
and GitHub and VS Code both allow it. All text from models and datasets is escaped.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from satlisa.errors import SatlisaError
from satlisa.evaluation import tables
from satlisa.evaluation.metrics import summarise
from satlisa.evaluation.score_tables import score_lines
from satlisa.evaluation.scoring.bootstrap import Statistic, intervals, value_of
from satlisa.evaluation.scoring.classes import draw_confusion
from satlisa.evaluation.scoring.summary import statistics_of
from satlisa.evaluation.tables import markdown_table
from satlisa.geometry.overlay import draw_objects, draw_overlay

REPORT_FILE = "REPORT.md"
RESULTS_FILE = "results.json"
IMAGE_FOLDER = "images"
_WIDTH = 190  # of a picture, in CSS pixels: four fit side by side on GitHub
_MAX_TEXT = 600  # characters of a prompt or an answer in a table cell
_HEADLINES = ("giou", "ciou", "accuracy", "ap50", "instance_f1", "box_f1", "cider_d")
_MAX_ERRORS = 100  # rows of a task's error table
Results = Mapping[str, Any]
Entry = Mapping[str, Any]


class Objects(NamedTuple):
    """The objects of a sample: masks as COCO's run lengths, and the pairs (prediction, truth) that match."""

    truths: Sequence[Mapping[str, Any]]
    predictions: Sequence[Mapping[str, Any]]
    pairs: Sequence[tuple[int, int]]


Pictures = (
    tuple[Image.Image, np.ndarray | None, np.ndarray | None]
    | tuple[Image.Image, np.ndarray | None, np.ndarray | None, Objects]
)


def write_report(results: Results, folder: Path) -> None:
    """Write results.json, REPORT.md and pictures of confusion matrices; `save_pictures` has written the others."""
    results = {**results, "tasks": _draw_confusions(results["tasks"], folder)}
    # Lone surrogates in a dataset's text have no UTF-8; backslashreplace writes them as JSON's own \udXXX.
    text = json.dumps(results, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    (folder / RESULTS_FILE).write_text(text, encoding="utf-8", errors="backslashreplace")
    (folder / REPORT_FILE).write_text(render(results), encoding="utf-8", errors="replace")


def _draw_confusions(tasks: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The tasks, each with a confusion matrix of several labels that has a picture now."""
    drawn = {}
    for number, (task, scores) in enumerate(tasks.items()):
        drawn[task] = scores
        matrix = scores.get("confusion")
        if matrix and len(matrix["labels"]) > 1:
            name = f"confusion_{number:02d}.png"
            (folder / IMAGE_FOLDER).mkdir(exist_ok=True)
            draw_confusion(matrix, folder / IMAGE_FOLDER / name)
            drawn[task] = {**scores, "confusion": {**matrix, "image": f"{IMAGE_FOLDER}/{name}"}}
    return drawn


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
    folder: Path,
    number: int,
    image: Image.Image,
    truth: np.ndarray | None,
    prediction: np.ndarray | None,
    objects: Objects | None = None,
) -> dict[str, str]:
    """Write the pictures of a sample at the image's own size, masks as 0/255.

    Args:
        folder: the report's image folder.
        number: the sample's number in the report.
        truth, prediction: (H, W) bool, or None for a sample without masks.
        objects: those of a sample that is scored object by object.

    Returns:
        Paths relative to the report, by kind: input, with masks gt_mask, pred_mask and overlay, with objects gt_objects
        and pred_objects, where a matched pair has one colour.
    """
    pictures: dict[str, Callable[[], Image.Image]] = {"input": lambda: image}
    if truth is not None and prediction is not None:
        pictures["gt_mask"] = lambda: Image.fromarray(truth).convert("L")
        pictures["pred_mask"] = lambda: Image.fromarray(prediction).convert("L")
        pictures["overlay"] = lambda: draw_overlay(image, truth, prediction)
    if objects is not None:
        pictures["gt_objects"] = lambda: draw_objects(image, _truths(objects))
        pictures["pred_objects"] = lambda: draw_objects(image, _predictions(objects))
    paths = {}
    for kind, draw in pictures.items():
        picture = draw()
        name = f"sample_{number:03d}_{kind}.png"
        picture.save(folder / name)
        paths[kind] = f"{IMAGE_FOLDER}/{name}"
    return paths


def _truths(objects: Objects) -> Iterator[tuple[np.ndarray, int, bool]]:
    return ((coco.decode(mask).astype(bool), number, True) for number, mask in enumerate(objects.truths))


def _predictions(objects: Objects) -> Iterator[tuple[np.ndarray, int, bool]]:
    """A matched prediction has its truth's colour; the others have further colours, and are not filled."""
    matched = dict(objects.pairs)
    for number, mask in enumerate(objects.predictions):
        colour = matched.get(number, len(objects.truths) + number)
        yield coco.decode(mask).astype(bool), colour, number in matched


def headline(results: Results) -> list[str]:
    """A line for each kind of score: masks, judged answers, use of `<SEG>`, and objects, boxes and captions if any."""
    answered = [entry for entry in results["samples"] if entry["error"] is None]
    scores = summarise(answered)
    drawn = {
        kind: summarise(entry for entry in answered if (entry["expected_segs"] > 0) == wanted)["seg_rate"]
        for kind, wanted in (("masks", True), ("text", False))
    }
    statistics, number = statistics_of(results["samples"]), len(results["samples"])
    chosen = {key: statistics[key] for key in _HEADLINES if key in statistics}
    bounds = _bounds(chosen, number) if any("intervals" in task for task in results["tasks"].values()) else {}
    found = {key: _number(value_of(chosen[key], number)) + bounds.get(key, "") for key in chosen if key != "accuracy"}
    lines = {
        "ap50": "Objects: AP50 {ap50}, F1 {instance_f1}",
        "box_f1": "Boxes in text: F1 {box_f1}",
        "cider_d": "Captions: CIDEr-D {cider_d}",
    }
    return [
        f"Masks: gIoU {_number(scores['giou'])}{bounds.get('giou', '')}, "
        f"cIoU {_number(scores['ciou'])}{bounds.get('ciou', '')} of {scores['masks']} samples",
        f"Classes and yes/no: {_percent(scores['accuracy'])}{bounds.get('accuracy', '')} right of {scores['judged']} "
        f"answers{_constant(results['tasks'])}",
        f"<SEG>: in {_percent(drawn['masks'])} of the answers that need a mask, "
        f"in {_percent(drawn['text'])} of the others",
        *(line.format(**found) for key, line in lines.items() if key in found),
    ]


def _bounds(statistics: Mapping[str, Statistic], num_samples: int) -> dict[str, str]:
    """The intervals of scores over all samples as text."""
    found = {}
    for key, interval in intervals(statistics, num_samples).items():
        write = _percent if key == "accuracy" else _number
        found[key] = f" ({write(interval[0])} to {write(interval[1])})" if interval else ""
    return found


def _constant(tasks: Mapping[str, Any]) -> str:
    """What the best constant answer to each task would have right, as text."""
    judged = [
        (scores["judged"], scores["constant_accuracy"]) for scores in tasks.values() if "constant_accuracy" in scores
    ]
    if not judged:
        return ""
    right = sum(number * share for number, share in judged) / sum(number for number, _ in judged)
    return f"; the best constant answer to each task {_percent(right)}"


def plain_table(results: Results) -> str:
    """The summary for a terminal, in aligned columns."""
    return tables.plain_table(_summary_rows(results))


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
    if any("constant_exact_match" in scores for _, scores in tasks):
        columns["Constant: accuracy"] = ("constant_accuracy", _percent)
        columns["exact match"] = ("constant_exact_match", _percent)
    return [["Task", *columns], *([task, *(write(s.get(key)) for key, write in columns.values())] for task, s in tasks)]


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
        *markdown_table([[escape(cell) for cell in row] for row in _summary_rows(results)]),
        "",
        "Mean IoU is gIoU, the mean over samples (1.0 where truth and prediction are both empty); cIoU is "
        "the sum of intersections over the sum of unions. Accuracy is over the answers that can be judged: "
        "scene classes and yes/no; exact match is over all text answers, words only; `<SEG>` is the share of "
        "answers that hold it. Errors are samples that could not be read or answered; they have no score. "
        "Overlays show the prediction in orange and the outline of the truth in cyan. Objects that match have one "
        "colour; predictions that match nothing are outlined in white.",
        *score_lines(results["tasks"], escape),
        "",
        "## Settings",
        "",
        *markdown_table(
            [["Setting", "Value"], *([escape(k), escape(_plain(v) or "–")] for k, v in settings.items())], 2
        ),
    ]
    for task, scores in results["tasks"].items():
        lines += ["", *_task_section(task, [entry for entry in results["samples"] if entry["task"] == task])]
        if picture := scores.get("confusion", {}).get("image"):
            lines += ["", f'<img src="{picture}" alt="Confusion matrix, truth by row" width="480">']
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
        lines += [f"### Errors: {len(errors)}{more}", "", *markdown_table([["Row", "Prompt", "Error"], *rows], 3), ""]
    hidden = len(entries) - len(shown) - len(errors)
    if hidden or len(errors) > _MAX_ERRORS:
        lines += [f"Scored but not shown here: {hidden} samples; {RESULTS_FILE} has every one.", ""]
    return lines[:-1]


def _sample_section(entry: Entry) -> list[str]:
    """One sample: its pictures, its prompt, the expected answer and the model's."""
    images, number = entry["images"], entry["number"]
    source = f" · {escape(entry['source'])}" if entry["source"] else ""
    kinds = {"input": "Input", "gt_mask": "Ground truth", "pred_mask": "Prediction", "overlay": "Overlay"}
    if "gt_objects" in images:
        kinds = {
            "input": "Input",
            "gt_objects": "True objects",
            "pred_objects": "Predicted objects",
            "overlay": "Overlay",
        }
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
        *markdown_table([list(shown.values()), pictures], len(shown)),
        "",
        *markdown_table([list(texts), list(texts.values())], len(texts)),
    ]


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
