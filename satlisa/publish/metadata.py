"""What machines read of a published model: the card's YAML with the legacy model-index, and `.eval_results/`."""

import re
from collections.abc import Sequence

from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml
from huggingface_hub.utils import yaml_dump

from satlisa import __version__
from satlisa.publish.parts import EVAL_RESULTS, Model
from satlisa.publish.results import Evaluation, Score

KNOWN_LICENSE, UNKNOWN_LICENSE = "apache-2.0", "unknown"
_KNOWN_MODELS = {"Qwen/Qwen3.5-0.8B", "Zigeng/SlimSAM-uniform-77"}  # both Apache 2.0, as their cards say
_TAGS = ["satlisa", "remote-sensing", "satellite", "image-segmentation", "referring-segmentation", "lisa", "sam"]
_DIGITS = 6  # of a score


def default_license(model: Model) -> str:
    """The base models' licence where it is known, else "unknown"."""
    return KNOWN_LICENSE if set(model.base_models) == _KNOWN_MODELS else UNKNOWN_LICENSE


def card_data(
    model: Model, repo: str, license_id: str, languages: Sequence[str], evaluation: Evaluation | None
) -> ModelCardData:
    """The YAML of README.md."""
    scores = evaluation.scores if evaluation else []
    return ModelCardData(
        license=license_id,
        language=list(languages) or None,
        library_name="satlisa",
        pipeline_tag="image-text-to-text",
        base_model=model.base_models or None,
        base_model_relation=_relation(model),
        datasets=list(model.datasets) or None,
        metrics=list(dict.fromkeys(score.metric for score in scores)) or None,
        tags=[*_TAGS, *([] if model.is_merged else ["lora"])],
        model_name=repo.split("/")[1] if evaluation else None,
        eval_results=[_model_index_entry(score, evaluation) for score in scores] if evaluation else None,
    )


def _relation(model: Model) -> str | None:
    """One word for both base models: an adapter is what a directory holds of the VLM until it is merged."""
    if not model.base_models:
        return None
    return "finetune" if model.is_merged else "adapter"


def _model_index_entry(score: Score, evaluation: Evaluation) -> EvalResult:
    details = {"samples": score.samples} | ({"interval_95": _rounded(*score.interval)} if score.interval else {})
    return EvalResult(
        task_type="image-segmentation" if score.of_masks else "image-text-to-text",
        dataset_type=evaluation.dataset,
        dataset_name=_dataset_name(evaluation),
        dataset_split=evaluation.split or None,
        metric_type=score.metric,
        metric_name=f"{score.task}: {score.name}",
        metric_value=_rounded(score.value)[0],
        metric_args=details,
    )


def _dataset_name(evaluation: Evaluation) -> str:
    if evaluation.kind == "hub":
        return evaluation.dataset
    kind = "made by satlisa" if evaluation.kind == "demo" else "a local folder"
    return f"{evaluation.dataset} ({kind}, not on the hub)"


def eval_results(evaluation: Evaluation) -> dict[str, bytes]:
    """The file in `.eval_results/`; none for a local dataset, whose name would be taken for one of the hub.

    `task_id` is the task and the score. The demo dataset has its own name, and a note that the hub does not have it.
    """
    if evaluation.kind == "local":
        return {}
    entries = [_entry(score, evaluation) for score in evaluation.scores]
    name = re.sub(r"[^\w.-]+", "_", evaluation.dataset)
    text: str = yaml_dump(eval_result_entries_to_yaml(entries), sort_keys=False)
    return {f"{EVAL_RESULTS}{name}.yaml": text.encode()}


def _entry(score: Score, evaluation: Evaluation) -> EvalResultEntry:
    bounds = "95 % interval {} to {}, ".format(*_rounded(*score.interval)) if score.interval else ""
    notes = f"{score.name}, {bounds}{score.samples} samples, {evaluation.split} split, satlisa {__version__}"
    if evaluation.kind == "demo":
        notes += "; dataset: synthetic scenes that the package satlisa makes, not on the hub"
    task_id = re.sub(r"\W+", "_", f"{score.task}_{score.key}")
    date = evaluation.date or None
    return EvalResultEntry(evaluation.dataset, task_id, _rounded(score.value)[0], date=date, notes=notes)


def _rounded(*values: float) -> list[float]:
    return [round(value, _DIGITS) for value in values]
