"""All files of the repository of a published model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from satlisa.config import ModelConfig
from satlisa.pretrained.model_directory import CONFIG_FILE
from satlisa.publish.card import card
from satlisa.publish.code import code_files
from satlisa.publish.local_paths import Files, refuse_local_paths
from satlisa.publish.metadata import card_data, default_license, eval_results
from satlisa.publish.parts import Model, Names, left_out, model_files, read_model
from satlisa.publish.results import read_evaluation


@dataclass(frozen=True)
class Wishes:
    """What the user says about the repository.

    Attributes:
        license_id: "" for the base models'.
        results: the results.json of an evaluation of this model.
    """

    repo: str
    names: Names
    license_id: str = ""
    languages: Sequence[str] = ("en",)
    results: Path | None = None
    with_code: bool = False


@dataclass(frozen=True)
class Repository:
    """The files of a repository, and what to say of them.

    Attributes:
        notes: a line for each thing that the user may not expect.
    """

    files: Files
    notes: list[str]


def put_together(folder: Path, wishes: Wishes) -> Repository:
    """The files of the model in a directory.

    Raises:
        SatlisaError: what is in the way of publishing it, and what to do.
    """
    model = read_model(folder, wishes.names)
    trained_on = ModelConfig.from_json(folder / CONFIG_FILE).dataset
    named = wishes.names.dataset if model.config.dataset != trained_on else ""
    evaluation = read_evaluation(wishes.results, folder, trained_on, named) if wishes.results else None
    license_id = wishes.license_id or default_license(model)
    files = model_files(model, wishes.repo) | (code_files(with_demo=model.is_demo) if wishes.with_code else {})
    if evaluation:
        files |= evaluation.files | eval_results(evaluation)
    data = card_data(model, wishes.repo, license_id, wishes.languages, evaluation)
    text = card(data, model, wishes.repo, files, evaluation)
    files["README.md"] = text.encode(errors="replace")  # lone surrogates of a dataset's text have no UTF-8
    refuse_local_paths(files, folder)
    return Repository(files, _notes(model, files, "" if wishes.license_id else license_id))


def _notes(model: Model, files: Files, license_id: str) -> list[str]:
    """What was left out or decided: files, names that the hub does not know, the licence unless it was given."""
    notes = [f"left out: {', '.join(names)}"] if (names := left_out(model, files)) else []
    if not model.vlm:
        notes.append("base_model: nothing tells which VLM was merged; --vlm_model names it")
    if model.is_demo:
        notes.append("base_model: demo models are not on the hub and not named there; they come with satlisa")
    if model.local_dataset:
        notes.append(f"dataset: {model.local_dataset} is not on the hub and left out; --dataset says how it is called")
    return notes + ([f"license: {license_id}; --license names another one"] if license_id else [])
