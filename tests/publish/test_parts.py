"""Which files of a model directory are published, and what is changed in them."""

import json
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoTokenizer

from satlisa.errors import SatlisaError
from satlisa.publish.local_paths import refuse_local_paths
from satlisa.publish.parts import Model, Names, left_out, model_files, public_datasets, published_names, read_model
from tests.helpers.published import HOME, REPO, change_json, text_of, write_merged

OTHERS = ["checkpoints/", "notes.txt", "train_log.jsonl", "train_summary.json"]


def read(run: Path, **names: str) -> Model:
    return read_model(run, Names(**names))


def test_the_model_is_published_and_nothing_else(demo_run: Path) -> None:
    (demo_run / "tokenizer" / "mine.txt").write_text("mine")
    model = read(demo_run)
    files = model_files(model, REPO)
    assert sorted(files) == [
        *("config.json", "loss_curve.png", "model_config.json", "sam_mask_decoder.pt", "seg_projector.pt"),
        *("seg_token.safetensors", "tokenizer/chat_template.jinja", "tokenizer/tokenizer.json"),
        *("tokenizer/tokenizer_config.json", "vlm_lora/README.md", "vlm_lora/adapter_config.json"),
        "vlm_lora/adapter_model.safetensors",
    ]
    assert left_out(model, files) == [*OTHERS, "tokenizer/mine.txt"]
    assert set(files) - {"config.json", "vlm_lora/README.md"} < {*published_names(), "model_config.json"}
    refuse_local_paths(files, demo_run)


def test_settings_of_peft_and_tokenizer_lose_local_places(demo_run: Path) -> None:
    change_json(demo_run / "vlm_lora/adapter_config.json", base_model_name_or_path=f"{HOME}/models/qwen")
    change_json(
        demo_run / "tokenizer/tokenizer_config.json",
        name_or_path=f"{HOME}/qwen",
        vocab_file="C:\\me\\v.json",
        init_kwargs={"name_or_path": f"{HOME}/qwen"},
    )
    files = model_files(read(demo_run), REPO)
    assert json.loads(text_of(files, "vlm_lora/adapter_config.json"))["base_model_name_or_path"] == "demo:vlm"
    settings = json.loads(text_of(files, "tokenizer/tokenizer_config.json"))
    assert not {"name_or_path", "vocab_file"} & settings.keys() and settings["eos_token"]
    assert settings["init_kwargs"] == {}
    about = text_of(files, "vlm_lora/README.md")
    assert "rank 16" in about and REPO in about and "More Information" not in about and HOME not in about


def test_a_local_base_model_needs_its_name_on_the_hub(demo_run: Path) -> None:
    local = demo_run.parent / "qwen"
    local.mkdir()
    change_json(demo_run / "model_config.json", vlm_model_id=str(local), sam_model_id="Zigeng/SlimSAM-uniform-77")
    with pytest.raises(SatlisaError, match=rf"vlm_model_id: '{local}' is a place .* --vlm_model owner/name"):
        read(demo_run)
    for wrong in (str(local), "../qwen", "http://qwen"):
        with pytest.raises(SatlisaError, match="--vlm_model: expected a hub id"):
            read(demo_run, vlm_model=wrong)
    model = read(demo_run, vlm_model="Qwen/Qwen3.5-0.8B")
    files = model_files(model, REPO)
    assert model.base_models == ["Qwen/Qwen3.5-0.8B", "Zigeng/SlimSAM-uniform-77"] and not model.is_demo
    assert json.loads(text_of(files, "model_config.json"))["vlm_model_id"] == "Qwen/Qwen3.5-0.8B"
    assert json.loads(text_of(files, "vlm_lora/adapter_config.json"))["base_model_name_or_path"] == "Qwen/Qwen3.5-0.8B"
    assert "base_model: Qwen/Qwen3.5-0.8B\n" in text_of(files, "vlm_lora/README.md")


def test_a_base_model_of_the_hub_is_not_renamed(demo_run: Path) -> None:
    change_json(demo_run / "model_config.json", sam_model_id="Zigeng/SlimSAM-uniform-77")
    with pytest.raises(SatlisaError, match="is 'Zigeng/SlimSAM-uniform-77' already"):
        read(demo_run, sam_model="facebook/sam-vit-base")


def test_names_of_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "mine").mkdir(parents=True)
    assert public_datasets("a/b,c/d:0.3") == ("a/b,c/d:0.3", ("a/b", "c/d"), "")
    assert public_datasets("demo") == ("demo", (), "")
    assert public_datasets(f"{HOME}/mine") == ("", (), "mine")
    assert public_datasets("data/mine") == ("", (), "mine")  # has the form of a hub id, and is a folder
    assert public_datasets("C:\\data\\mine,a/b") == ("", ("a/b",), "mine")
    assert public_datasets(f"{HOME}/mine", "alice/mine") == ("alice/mine", ("alice/mine",), "")
    assert public_datasets("a/b", "alice/mine") == ("a/b", ("a/b",), "")
    with pytest.raises(SatlisaError, match="--dataset: expected hub ids"):
        public_datasets("a/b", "data/mine")


def test_a_dataset_of_the_hub_is_not_renamed(demo_run: Path) -> None:
    with pytest.raises(SatlisaError, match="dataset is 'demo' already"):
        read(demo_run, dataset="alice/mine")


def test_a_local_dataset_is_not_in_the_published_settings(demo_run: Path) -> None:
    change_json(demo_run / "model_config.json", dataset=f"{HOME}/mine", somebodys="own key")
    model = read(demo_run)
    settings = json.loads(text_of(model_files(model, REPO), "model_config.json"))
    assert settings["dataset"] == "" and settings["somebodys"] == "own key" and model.local_dataset == "mine"


def test_config_json_misleads_nobody(demo_run: Path, tmp_path: Path) -> None:
    content = text_of(model_files(read(demo_run), REPO), "config.json")
    (demo_run / "config.json").write_text(content)
    with pytest.raises(ValueError, match="model type `satlisa`"):
        AutoConfig.from_pretrained(demo_run)
    assert AutoTokenizer.from_pretrained(demo_run / "tokenizer").get_vocab()["<SEG>"] == 518


def test_a_merged_model_keeps_its_own_config(tmp_path: Path) -> None:
    model = read(write_merged(tmp_path / "m", ".", base_vlm_model_id="Qwen/Qwen3.5-0.8B"))
    files = model_files(model, REPO)
    assert sorted(files) == [
        *("config.json", "generation_config.json", "model-00001-of-00001.safetensors", "model.safetensors.index.json"),
        *("model_config.json", "sam_mask_decoder.safetensors", "seg_projector.safetensors", "tokenizer.json"),
        "tokenizer_config.json",
    ]
    assert json.loads(text_of(files, "config.json")) == {"model_type": "qwen3_5"}
    assert json.loads(text_of(files, "model_config.json"))["vlm_model_id"] == "."
    assert model.is_merged and model.base_models == ["Qwen/Qwen3.5-0.8B", "a/sam"]
    assert left_out(model, files) == ["mine.safetensors"]


def test_a_merged_model_is_told_its_base(tmp_path: Path) -> None:
    folder = write_merged(tmp_path / "m", ".")
    assert read(folder).base_models == ["a/sam"]
    assert read(folder, vlm_model="Qwen/Qwen3.5-0.8B").base_models == ["Qwen/Qwen3.5-0.8B", "a/sam"]


def test_a_demo_model_that_was_merged_has_its_name(tmp_path: Path) -> None:
    """And what else the key may say names nothing."""
    assert read(write_merged(tmp_path / "m", ".", base_vlm_model_id="demo:vlm")).vlm == "demo:vlm"
    for other in (f"{HOME}/vlm", 7, None):
        change_json(tmp_path / "m" / "model_config.json", base_vlm_model_id=other)
        assert read(tmp_path / "m").vlm == ""


def test_a_vlm_in_a_folder_of_its_own(tmp_path: Path) -> None:
    model = read(write_merged(tmp_path / "m", "./merged_vlm"))
    files = model_files(model, REPO)
    assert {"merged_vlm/config.json", "merged_vlm/model-00001-of-00001.safetensors", "vlm_lora/README.md"} < set(files)
    assert json.loads(text_of(files, "config.json"))["model_type"] == "satlisa" and not model.is_merged
    change_json(tmp_path / "m" / "model_config.json", vlm_model_id="./../other")
    with pytest.raises(SatlisaError, match="leaves the model directory"):
        read(tmp_path / "m")
