"""What the hub reads, checked with its own classes."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData, parse_eval_result_entries

from satlisa.publish.metadata import default_license
from satlisa.publish.parts import Names, read_model
from tests.helpers.published import HOME, REPO, change_json, evaluate_run, published, text_of

QWEN, SLIMSAM = "Qwen/Qwen3.5-0.8B", "Zigeng/SlimSAM-uniform-77"


def card_of(run: Path, **wishes: Any) -> ModelCardData:
    data = ModelCard(text_of(published(run, **wishes), "README.md")).data
    assert isinstance(data, ModelCardData)
    return data


def on_hub(run: Path) -> Path:
    """The run, as if it had been trained with models and data of the hub."""
    change_json(run / "model_config.json", vlm_model_id=QWEN, sam_model_id=SLIMSAM, dataset="a/b,c/d:0.5")
    return run


def test_the_yaml_names_models_data_and_licence(demo_run: Path) -> None:
    data = card_of(on_hub(demo_run))
    assert data.base_model == [QWEN, SLIMSAM] and data["base_model_relation"] == "adapter"
    assert (data.library_name, data.pipeline_tag, data.license) == ("satlisa", "image-text-to-text", "apache-2.0")
    assert data.datasets == ["a/b", "c/d"] and data.language == ["en"] and {"lora", "satlisa"} < set(data.tags or [])
    assert data.metrics is None and data.eval_results is None


def test_what_is_not_on_the_hub_is_not_named_as_if_it_were(demo_run: Path) -> None:
    data = card_of(demo_run)
    assert data.base_model is None and data.datasets is None and data.get("base_model_relation") is None
    assert data.license == "unknown"
    change_json(demo_run / "model_config.json", dataset=f"{HOME}/mine")
    assert card_of(demo_run).datasets is None
    assert card_of(demo_run, names=Names(dataset="alice/mine")).datasets == ["alice/mine"]


def test_wishes_come_first(demo_run: Path) -> None:
    data = card_of(demo_run, license_id="cc-by-4.0", languages=("de", "en"))
    assert data.license == "cc-by-4.0" and data.language == ["de", "en"]


def test_the_licence_is_known_of_the_default_models_alone(demo_run: Path) -> None:
    assert default_license(read_model(on_hub(demo_run), Names())) == "apache-2.0"
    change_json(demo_run / "model_config.json", sam_model_id="facebook/sam-vit-base")
    assert default_license(read_model(demo_run, Names())) == "unknown"


def test_scores_are_in_the_model_index(demo_run: Path, tmp_path: Path) -> None:
    data = card_of(demo_run, results=evaluate_run(demo_run, tmp_path / "eval"))
    results = data.eval_results
    assert isinstance(results, list) and data.model_name == REPO.split("/")[1]
    giou = next(result for result in results if result.metric_name == "building_segmentation: gIoU")
    assert isinstance(giou, EvalResult) and giou.metric_value == 0.666667 and giou.task_type == "image-segmentation"
    assert (giou.dataset_type, giou.dataset_split) == ("demo", "test") and "not on the hub" in giou.dataset_name
    assert giou.metric_args and giou.metric_args["samples"] == 1 and len(giou.metric_args["interval_95"]) == 2
    assert set(data.metrics or []) == {result.metric_type for result in results} > {"giou", "accuracy"}


def entries_of(files: Any, name: str) -> list[Any]:
    return parse_eval_result_entries(yaml.safe_load(text_of(files, name)))


def test_eval_results_are_the_hubs_entries(demo_run: Path, tmp_path: Path) -> None:
    results = evaluate_run(demo_run, tmp_path / "eval", dataset="alice/satellites")
    entries = entries_of(published(demo_run, results=results), ".eval_results/satlisa-alice_satellites.yaml")
    giou = next(entry for entry in entries if entry.task_id == "building_segmentation_giou")
    assert (giou.dataset_id, giou.value) == ("alice/satellites", 0.666667) and isinstance(giou.date, str)
    assert "95 % interval" in giou.notes and "test split" in giou.notes and "not on the hub" not in giou.notes
    assert len({entry.task_id for entry in entries}) == len(entries) > 4


def test_eval_results_of_the_demo_say_what_it_is(demo_run: Path, tmp_path: Path) -> None:
    files = published(demo_run, results=evaluate_run(demo_run, tmp_path / "eval"))
    assert all("not on the hub" in entry.notes for entry in entries_of(files, ".eval_results/satlisa-demo.yaml"))


def test_a_local_dataset_has_no_eval_results(demo_run: Path, tmp_path: Path) -> None:
    files = published(demo_run, results=evaluate_run(demo_run, tmp_path / "eval", dataset=f"{HOME}/mine"))
    assert not [name for name in files if name.startswith(".eval_results")]
    assert "On mine, a local dataset, test split" in text_of(files, "README.md")


@pytest.mark.parametrize("name", ["README.md", "vlm_lora/README.md"])
def test_cards_are_cards(demo_run: Path, name: str) -> None:
    assert ModelCard(text_of(published(demo_run), name)).data.library_name in ("satlisa", "peft")
