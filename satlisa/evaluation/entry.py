"""One sample's entry in `results.json`: what was asked, expected and answered, and the numbers that its scores need."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from satlisa.data.images import fingerprint
from satlisa.data.rows import is_mask_task
from satlisa.data.sample import Sample
from satlisa.evaluation.metrics import exact_match, intersection_union, iou, is_correct
from satlisa.evaluation.report import Entry, Objects, Pictures
from satlisa.evaluation.scoring import boxes, captions, counts, instances, referring
from satlisa.geometry.raster import rasterize
from satlisa.inference.generation import Answer


@dataclass(frozen=True)
class Pick:
    """A row to evaluate: its number in the evaluation, its index in the split, its task, whether pictures are drawn."""

    number: int
    index: int
    task: str
    is_pictured: bool


def blank(pick: Pick, **known: Any) -> dict[str, Any]:
    """An entry with the keys that every entry has, None where a key does not apply."""
    text_keys, score_keys = ("source", "prompt", "expected", "output"), ("iou", "intersection", "union")
    unknown = dict.fromkeys((*text_keys, *score_keys, "correct", "exact_match", "error"))
    segs: dict[str, Any] = {"segs": 0, "expected_segs": 0, "images": {}}
    return {"number": pick.number, "index": pick.index, "task": pick.task} | unknown | segs | known


def score(
    pick: Pick, sample: Sample, result: Answer | str, config: Any, seg_tasks: Collection[str]
) -> tuple[dict[str, Any], Pictures | None]:
    """The entry of a sample, and its pictures: image, truth and prediction.

    Beside the keys of `blank` it has those of the kinds of scores that apply: instances, referring, boxes, counts,
    caption.

    Args:
        result: the model's answer, or the reason why there is none.
    """
    has_mask = bool(sample.regions) or is_mask_task(pick.task, seg_tasks)
    segs = min(len(sample.regions), config.max_instances)  # as many as the model was trained to give
    entry = blank(
        pick,
        source=sample.source,
        prompt=sample.turns[-1].text,
        expected=" ".join([sample.answer, *[config.seg_token] * segs]).strip(),
        expected_segs=segs,
    )
    if isinstance(result, str):
        return {**entry, "error": result}, None
    entry |= {"output": result.text, "segs": result.num_segs}
    if has_mask:
        return _score_masks(entry, sample, result)
    words = result.text.replace(config.seg_token, " ")
    entry["correct"] = is_correct(pick.task, entry["prompt"], sample.answer, words)
    entry["exact_match"] = exact_match(sample.answer, words)
    return entry | _score_words(entry, sample, words), (sample.image, None, None)


def _score_words(entry: Entry, sample: Sample, words: str) -> dict[str, Any]:
    """Boxes; else counts and captions, which an answer that is judged as a class or yes/no is not."""
    if (found := boxes.measure(entry["prompt"], sample.answer, words, sample.metadata, entry["task"])) is not None:
        return {"boxes": found}
    if entry["correct"] is not None:
        return {}
    measured: dict[str, Any] = {}
    if captions.is_caption(entry["task"], entry["prompt"], sample.answer):
        measured = {"caption": True, "image_key": fingerprint(sample.image)}
    if counts.asks_for_counts(entry["task"], entry["prompt"], sample.answer):
        numbers = counts.measure(sample.answer, words, entry["prompt"])
        measured |= {} if numbers is None else {"counts": numbers}
    return measured


def _score_masks(entry: dict[str, Any], sample: Sample, result: Answer) -> tuple[dict[str, Any], Pictures]:
    width, height = sample.image.size
    truth, prediction = _unions(sample, result)
    entry["intersection"], entry["union"] = intersection_union(prediction, truth)
    entry["iou"] = iou(entry["intersection"], entry["union"])
    if "instance" not in sample.task.casefold():  # one mask a row, or one for each object: the task's rows tell
        pixels = (int(np.count_nonzero(mask)) for mask in (prediction, truth))
        entry["referring"] = referring.measure(*pixels)
    truths = instances.encode_regions(sample.regions, height, width)
    predictions = list(result.encoded) or instances.encode_masks(result.masks)
    entry["instances"] = instances.measure(predictions, truths, result.scores)
    objects = Objects(truths, predictions, instances.matched_pairs(entry["instances"]))
    if "referring" in entry and max(len(truths), len(predictions)) < 2:
        return entry, (sample.image, truth, prediction)
    return entry, (sample.image, truth, prediction, objects)


def _unions(sample: Sample, result: Answer) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction, each the union of all instances, (H, W) bool at the image's own size."""
    width, height = sample.image.size
    polygons = [polygon for region in sample.regions for polygon in region]
    prediction = result.union()
    if prediction is None:
        prediction = np.zeros((height, width), dtype=bool)
    return rasterize(polygons, height, width), prediction
