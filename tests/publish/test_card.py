"""The text of README.md."""

import re
from pathlib import Path

import pytest
from PIL import Image

from satlisa.publish.parts import Names
from tests.helpers import made_up_answers as made_up
from tests.helpers.model_fixtures import picture
from tests.helpers.published import HOME, SUMMARY, change_json, evaluate_run, published, text_of, write_merged


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_settings_data_and_parameters_of_the_training(demo_run: Path) -> None:
    text = text_of(published(demo_run), "README.md")
    training = section(text, "Training")
    assert "synthetic scenes that satlisa makes" in training and "300 optimizer steps in 11 minutes" in training
    assert "| `LEARNING_RATE` | 0.002 |" in training and "| `lora_r` | 16 |" in training
    assert "3 rows could not be used" in training and "](loss_curve.png)" in training
    assert "| VLM | 3,745,056 | 0 |" in section(text, "Parameters")
    assert "No evaluation was published" in section(text, "Evaluation")
    assert HOME not in text and "OUTPUT_DIR" not in text


def test_without_a_summary_the_trained_parts_are_counted(demo_run: Path) -> None:
    (demo_run / "train_summary.json").unlink()
    (demo_run / "loss_curve.png").unlink()
    text = text_of(published(demo_run), "README.md")
    assert "| &lt;SEG&gt; row | 192 | 192 |" in text and "| LoRA | 153,600 | 153,600 |" in text
    assert "loss_curve" not in text and "optimizer steps" not in text


def test_places_of_this_machine_in_settings_are_not_shown(demo_run: Path) -> None:
    settings = {**SUMMARY["settings"], "SEG_TASKS": {"value": f"{HOME}/tasks", "from": "environment"}}
    change_json(demo_run / "train_summary.json", settings=settings)
    assert "| `SEG_TASKS` | (a local place) |" in text_of(published(demo_run), "README.md")


def test_scores_with_intervals_and_a_picture(demo_run: Path, tmp_path: Path) -> None:
    files = published(demo_run, results=evaluate_run(demo_run, tmp_path / "eval"))
    text = text_of(files, "README.md")
    row = r"\| building\\_segmentation \| 1 \| gIoU \| 0\.667 \| \d\.\d{3} to \d\.\d{3} \| – \|"
    assert re.search(row, section(text, "Evaluation"))
    linked = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert linked == ["images/example_input.png", "images/example_overlay.png", "loss_curve.png"]
    assert set(linked) < set(files) and "the median of the report's pictures" in text


def test_text_of_models_and_datasets_is_escaped(demo_run: Path, tmp_path: Path) -> None:
    results = evaluate_run(demo_run, tmp_path / "eval")
    results.write_text(results.read_text().replace("Here they are.", "x").replace("Here <SEG>", "<img src=x> | y"))
    results.write_text(results.read_text().replace(made_up.BUILDINGS[1], "\\ud800 lone"))
    text = text_of(published(demo_run, results=results), "README.md")
    assert "<img" not in text and "? lone" in text


@pytest.mark.integration
def test_the_snippets_run(demo_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = section(text_of(published(demo_run), "README.md"), "Use it")
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(snippets) == 2
    picture(40, 30).save(tmp_path / "sat.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("satlisa.pretrained.model_directory.snapshot_download", lambda repo: str(demo_run))
    for snippet in snippets:
        exec(compile(re.sub(r'("sat.jpg", "[^"]+")', r"\1, max_new_tokens=4", snippet), "README.md", "exec"), {})
    if (tmp_path / "mask.png").exists():
        assert Image.open(tmp_path / "mask.png").size == (40, 30)


def test_the_code_has_a_snippet_of_its_own(demo_run: Path) -> None:
    text = text_of(published(demo_run, with_code=True), "README.md")
    assert "sys.path.insert(0, folder)" in text and "python model/inference.py" in text
    assert "sys.path.insert" not in text_of(published(demo_run), "README.md")


def test_a_local_dataset_by_its_name_alone(demo_run: Path) -> None:
    change_json(demo_run / "model_config.json", dataset=f"{HOME}/mine")
    assert "Trained on a local dataset, mine." in text_of(published(demo_run), "README.md")
    named = text_of(published(demo_run, names=Names(dataset="alice/mine")), "README.md")
    assert "Trained on [alice/mine](https://huggingface.co/datasets/alice/mine)." in named


def test_a_merged_model_says_what_it_holds(tmp_path: Path) -> None:
    folder = write_merged(tmp_path / "m", ".")
    text = text_of(published(folder, names=Names(vlm_model="Qwen/Qwen3.5-0.8B")), "README.md")
    assert "of which this repository holds a copy with LoRA merged;" in text and "base_model_relation: finetune" in text
    assert "It is a vision-language model, of which" in text_of(published(folder), "README.md")
