"""What is published of an evaluation: scores with their intervals, and one of its pictures."""

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from satlisa.errors import SatlisaError, first_line
from satlisa.evaluation.report import read_results
from satlisa.pretrained.model_directory import fingerprint_model
from satlisa.publish.local_paths import Files
from satlisa.publish.parts import EXAMPLE, public_datasets

# Scores by key: their names, and the key of what the best constant answer scores.
_SCORES = {
    "giou": ("gIoU", ""),
    "ciou": ("cIoU", ""),
    "ap50": ("AP50", ""),
    "instance_f1": ("F1 of objects at IoU 0.5", ""),
    "instance_count_exact": ("number of objects right", ""),
    "box_f1": ("F1 of boxes at IoU 0.5", ""),
    "label_count_exact": ("counts right", ""),
    "bleu_4": ("BLEU-4", ""),
    "rouge_l": ("ROUGE-L", ""),
    "cider_d": ("CIDEr-D", ""),
    "accuracy": ("accuracy", "constant_accuracy"),
    "exact_match": ("exact match", "constant_exact_match"),
}
_OF_MASKS = ("giou", "ciou", "ap50", "instance_f1", "instance_count_exact")
_HUB_METRICS = {"bleu_4": "bleu", "rouge_l": "rouge"}
_KINDS = {"input": "Image", "overlay": "Prediction (orange), truth (cyan line)"}
_LONGEST_SIDE = 1024  # pixels of a published picture


@dataclass(frozen=True)
class Score:
    """One score of one task.

    Attributes:
        interval: the 95 % bootstrap interval, None where there is none.
        constant: what the best constant answer scores, None where that says nothing.
        samples: of the task; for the accuracy, those whose answer can be judged.
    """

    task: str
    key: str
    value: float
    interval: tuple[float, float] | None
    constant: float | None
    samples: int

    @property
    def name(self) -> str:
        """Its name for people."""
        return _SCORES[self.key][0]

    @property
    def metric(self) -> str:
        """Its id among the hub's metrics, or our own."""
        return _HUB_METRICS.get(self.key, self.key)

    @property
    def of_masks(self) -> bool:
        """Whether it tells of masks, rather than of text."""
        return self.key in _OF_MASKS


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of the published model.

    Attributes:
        dataset: hub id, "demo", or the name of a local dataset.
        kind: which of the three.
        date: of its start, ISO 8601; "" where results.json does not tell.
        example: a sample's entry in results.json, None without a picture.
        pictures: the example's, by their heading: path in the repository.
        files: the content of those.
    """

    dataset: str
    kind: Literal["hub", "demo", "local"]
    split: str
    date: str
    errors: int
    scores: list[Score]
    example: Mapping[str, Any] | None
    pictures: Mapping[str, str]
    files: Files


def read_evaluation(path: Path, folder: Path, trained_on: str, named: str) -> Evaluation:
    """An evaluation of the model in `folder`.

    Args:
        path: its results.json; pictures are taken from the folder beside it.
        trained_on: `dataset` of the directory's model_config.json.
        named: the hub's name of that dataset, if it is a folder of this machine; "" otherwise.

    Raises:
        SatlisaError: unreadable, of other model files, or without any score.
    """
    results = read_results(path)
    settings, tasks = results["settings"], results["tasks"]
    if not isinstance(settings, dict) or not isinstance(tasks, dict) or not isinstance(results["samples"], list):
        raise SatlisaError(f"{path}: expected objects of settings and tasks and a list of samples")
    _check_model(path, settings, folder)
    scores = [score for task, values in tasks.items() for score in _scores(task, values)]
    if not scores:
        raise SatlisaError(f"{path}: holds no score; evaluate the model again with infer_dataset.py")
    dataset = str(settings.get("dataset") or "")
    _, names, local = public_datasets(dataset, named if dataset == trained_on else "")
    example, images = _choose_example(results["samples"], path.parent)
    return Evaluation(
        dataset=" and ".join(names) or local or dataset or "an unnamed dataset",
        kind="hub" if names else "demo" if dataset == "demo" else "local",
        split=str(settings.get("split") or ""),
        date=str(settings.get("started") or ""),
        errors=sum(int(values.get("errors") or 0) for values in tasks.values()),
        scores=scores,
        example=example,
        pictures={_KINDS[kind]: f"{EXAMPLE}{kind}.png" for kind in images},
        files={f"{EXAMPLE}{kind}.png": content for kind, content in images.items()},
    )


def _check_model(path: Path, settings: Mapping[str, Any], folder: Path) -> None:
    """The scores must be those of these files."""
    found, own = settings.get("model_files"), fingerprint_model(folder)
    if found == own:
        return
    what = f"was made with other model files (fingerprint {found})" if found else "does not say which files it is of"
    raise SatlisaError(
        f"--results: {path} {what}, and {folder} has the fingerprint {own}; its scores would be published as "
        f"another model's. Evaluate this model: python infer_dataset.py --model_dir {folder} --output_dir new_eval"
    )


def _scores(task: str, values: Mapping[str, Any]) -> list[Score]:
    found, bounds = [], values.get("intervals") or {}
    for key, (_, constant) in _SCORES.items():
        if (value := values.get(key)) is not None:
            interval = tuple(bounds[key]) if bounds.get(key) else None
            samples = int(values.get("judged" if key == "accuracy" else "samples") or 0)
            found.append(Score(task, key, value, interval, values.get(constant), samples))
    return found


def _choose_example(samples: list[dict[str, Any]], report: Path) -> tuple[dict[str, Any] | None, dict[str, bytes]]:
    """The sample of median IoU among those with an overlay, else the first with a picture, and its pictures."""
    shown = [(entry, images) for entry in samples if (images := _images(entry, report))]
    masks = sorted((pair for pair in shown if "overlay" in pair[1]), key=lambda pair: pair[0].get("iou") or 0.0)
    if not shown:
        return None, {}
    entry, images = masks[len(masks) // 2] if masks else shown[0]
    return entry, {kind: _picture(path) for kind, path in images.items()}


def _images(entry: Mapping[str, Any], report: Path) -> dict[str, Path]:
    """The files of a sample's pictures that exist, inside of the report."""
    named = {kind: report / str(name) for kind, name in (entry.get("images") or {}).items() if kind in _KINDS}
    place = report.resolve()
    return {kind: path for kind, path in named.items() if path.is_file() and place in path.resolve().parents}


def _picture(path: Path) -> bytes:
    """A picture as PNG, of at most `_LONGEST_SIDE`, without what its file says besides."""
    try:
        with Image.open(path) as image:
            pixels = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise SatlisaError(f"--results: {path}: not a readable picture ({first_line(error)})") from error
    pixels.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    pixels.info.clear()
    buffer = BytesIO()
    pixels.save(buffer, "PNG")
    return buffer.getvalue()
