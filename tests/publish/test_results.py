"""What is taken from an evaluation, and that it is one of the published model."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from satlisa.errors import SatlisaError
from satlisa.publish.results import Evaluation, read_evaluation
from tests.helpers.published import HOME, change_json, evaluate_run


def read(results: Path, run: Path, trained_on: str = "demo", named: str = "") -> Evaluation:
    return read_evaluation(results, run, trained_on, named)


def test_scores_intervals_and_a_picture(demo_run: Path, tmp_path: Path) -> None:
    results = evaluate_run(demo_run, tmp_path / "eval")
    found = read(results, demo_run)
    tasks = json.loads(results.read_text())["tasks"]
    giou = next(score for score in found.scores if (score.task, score.key) == ("building_segmentation", "giou"))
    assert giou.value == pytest.approx(20 / 30) and giou.of_masks and giou.metric == "giou"
    assert list(giou.interval or ()) == tasks["building_segmentation"]["intervals"]["giou"]
    accuracy = next(score for score in found.scores if (score.task, score.key) == ("scene_classification", "accuracy"))
    assert (accuracy.value, accuracy.constant, accuracy.samples) == (1.0, 1.0, 1) and not accuracy.of_masks
    assert (found.dataset, found.kind, found.split, found.errors) == ("demo", "demo", "test", 0)
    assert found.example and found.example["task"] in ("building_segmentation", "instance_segmentation")
    assert list(found.files) == ["images/example_input.png", "images/example_overlay.png"]
    content = found.files["images/example_overlay.png"]
    assert isinstance(content, bytes) and Image.open(io.BytesIO(content)).size == (40, 20)


def test_scores_of_other_files_are_refused(demo_run: Path, tmp_path: Path) -> None:
    results = evaluate_run(demo_run, tmp_path / "eval")
    change_json(demo_run / "model_config.json", max_instances=5)
    with pytest.raises(SatlisaError, match=r"made with other model files .* infer_dataset.py --model_dir"):
        read(results, demo_run)
    content = json.loads(results.read_text())
    del content["settings"]["model_files"]
    results.write_text(json.dumps(content))
    with pytest.raises(SatlisaError, match="does not say which files"):
        read(results, demo_run)


def test_a_report_without_pictures_or_with_others_has_none(demo_run: Path, tmp_path: Path) -> None:
    results = evaluate_run(demo_run, tmp_path / "eval")
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    content = json.loads(results.read_text())
    for entry in content["samples"]:
        entry["images"] = {"input": "../secret.png", "overlay": str(tmp_path / "secret.png")}
    results.write_text(json.dumps(content))
    found = read(results, demo_run)
    assert found.example is None and not found.files and not found.pictures


def test_the_example_is_the_median(demo_run: Path, tmp_path: Path) -> None:
    results = evaluate_run(demo_run, tmp_path / "eval")
    content = json.loads(results.read_text())
    masks = [entry for entry in content["samples"] if "overlay" in entry["images"]]
    content["samples"] = [{**masks[0], "iou": iou, "prompt": str(iou)} for iou in (0.9, 0.1, 0.5)]
    results.write_text(json.dumps(content))
    example = read(results, demo_run).example
    assert example and example["iou"] == 0.5


def test_datasets_by_their_public_names(demo_run: Path, tmp_path: Path) -> None:
    results = evaluate_run(demo_run, tmp_path / "eval", dataset=f"{HOME}/mine")
    found = read(results, demo_run, f"{HOME}/mine")
    assert (found.dataset, found.kind) == ("mine", "local")
    found = read(results, demo_run, f"{HOME}/mine", "alice/mine")
    assert (found.dataset, found.kind) == ("alice/mine", "hub")
    assert read(results, demo_run, f"{HOME}/other", "alice/other").dataset == "mine"  # evaluated on another one
    change_json(results, settings={**json.loads(results.read_text())["settings"], "dataset": f"{HOME}/demo"})
    assert read(results, demo_run).kind == "local"  # though it is called demo


@pytest.mark.parametrize("text", ["", "[]", '{"settings": [], "tasks": {}, "samples": []}'])
def test_other_files_are_one_line(demo_run: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(SatlisaError, match=r"results\.json"):
        read(tmp_path / "results.json", demo_run)


def test_results_without_scores_are_refused(demo_run: Path, tmp_path: Path) -> None:
    results = evaluate_run(demo_run, tmp_path / "eval")
    change_json(results, tasks={})
    with pytest.raises(SatlisaError, match="holds no score"):
        read(results, demo_run)
