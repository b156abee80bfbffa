"""model_config.json: defaults of the contract, and checks."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from tests.helpers.paths import ROOT

HUB_DATASET = "rahuldshetty/satellite-multitask-omni"


def test_the_repository_configures_the_real_model() -> None:
    assert json.loads((ROOT / "model_config.json").read_text()) == {
        "vlm_model_id": "Qwen/Qwen3.5-0.8B",
        "sam_model_id": "Zigeng/SlimSAM-uniform-77",
        "seg_token": "<SEG>",
        "seg_token_id": None,
        "vlm_hidden_size": 1024,
        "projector_hidden_size": 1024,
        "sam_prompt_size": 256,
        "lora_r": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.0,
        "lora_target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "in_proj_qkv", "in_proj_z", "out_proj"],
        "text_loss_weight": 1.0,
        "bce_loss_weight": 2.0,
        "dice_loss_weight": 0.5,
        "max_seq_length": 512,
        "max_image_tokens": 256,
        "max_instances": 32,
        "instance_places": "box",
        "dataset": HUB_DATASET,
    }
    assert ModelConfig.from_json(ROOT / "model_config.json") == ModelConfig(instance_places="box")


def test_a_model_directory_without_places_has_none(tmp_path: Path) -> None:
    (tmp_path / "model_config.json").write_text("{}")
    assert ModelConfig.from_json(tmp_path / "model_config.json").instance_places == "none"


def test_missing_keys_take_defaults_and_unknown_ones_are_written_back(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text('{"lora_r": 8, "license": "mit", "notes": {"a": [1]}, "bce_loss_weight": 1}')
    config = ModelConfig.from_json(tmp_path / "in.json")
    assert (config.lora_r, config.lora_alpha, config.bce_loss_weight) == (8, 32, 1)
    assert config.extra == {"license": "mit", "notes": {"a": [1]}}
    config.save(tmp_path / "out.json")
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["license"] == "mit" and written["notes"] == {"a": [1]} and written["lora_r"] == 8
    assert "extra" not in written
    assert ModelConfig.from_json(tmp_path / "out.json") == config


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model_config.json"
    ModelConfig(lora_r=4).save(path)
    broken = ModelConfig(extra={"thing": object()})
    with pytest.raises(TypeError):
        broken.save(path)
    assert ModelConfig.from_json(path).lora_r == 4

    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        ModelConfig(lora_r=2).save(path)
    assert ModelConfig.from_json(path).lora_r == 4 and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("vlm_model_id", 5, "str, found 5"),
        ("seg_token_id", "248077", "int | None, found '248077'"),
        ("lora_r", "16", "int, found '16'"),
        ("lora_r", 16.5, "int, found 16.5"),
        ("lora_r", True, "int, found True"),
        ("lora_r", 0, "a positive integer, found 0"),
        ("seg_token", " ", "a token such as <SEG>, found an empty text"),
        ("lora_alpha", -1, "a positive integer, found -1"),
        ("projector_hidden_size", 0, "a positive integer, found 0"),
        ("max_image_tokens", 0, "a positive integer, found 0"),
        ("max_instances", 0, "a positive integer, found 0"),
        ("lora_dropout", 1.0, "0 to below 1, found 1.0"),
        ("lora_dropout", -0.1, "0 to below 1, found -0.1"),
        ("lora_target_modules", [], "list[str], found []"),
        ("lora_target_modules", ["q_proj", 1], "list[str], found ['q_proj', 1]"),
        ("bce_loss_weight", "2", "float, found '2'"),
        ("max_seq_length", 1, "more than max_image_tokens (256), found 1; no text would fit beside the image"),
        ("dataset", ["a"], "str, found ['a']"),
    ],
)
def test_a_wrong_value_is_named_with_its_file(tmp_path: Path, key: str, value: Any, expected: str) -> None:
    path = tmp_path / "model_config.json"
    path.write_text(json.dumps({key: value}))
    with pytest.raises(SatlisaError) as error:
        ModelConfig.from_json(path)
    assert str(error.value) == f"{path}: {key}: expected {expected}"
    with pytest.raises(SatlisaError, match=rf"^model_config\.json: {key}: expected "):
        ModelConfig(**{key: value})


@pytest.mark.parametrize(
    ("content", "key", "value"),
    [
        ({"vlm_model_id": None, "lora_r": None}, "lora_r", 16),
        ({"lora_alpha": 32.0}, "lora_alpha", 32),
        ({"seg_token_id": 248077.0}, "seg_token_id", 248077),
        ({"lora_target_modules": "q_proj"}, "lora_target_modules", ["q_proj"]),
        ({"max_seq_length": 256}, "max_image_tokens", 128),
        ({"max_seq_length": 400}, "max_image_tokens", 256),
    ],
)
def test_what_other_programs_write_is_understood(tmp_path: Path, content: Any, key: str, value: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps(content))
    found = getattr(ModelConfig.from_json(tmp_path / "config.json"), key)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not a readable JSON file"), ("[1]", "expected a JSON object, found list"), (None, "No such file")],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SatlisaError, match=message) as error:
        ModelConfig.from_json(path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_vlm_of_its_own_remembers_what_it_was_made_from() -> None:
    """Once merged, twice merged, made from a folder of this machine, whose place nobody else has."""
    merged = ModelConfig(vlm_model_id="o/vlm", extra={"mine": 1}).with_own_vlm("./merged_vlm")
    assert merged.extra == {"mine": 1, "base_vlm_model_id": "o/vlm"} and merged.brings_vlm
    assert merged.with_own_vlm(".").extra["base_vlm_model_id"] == "o/vlm"
    local = ModelConfig(vlm_model_id="/home/me/vlm", extra={"base_vlm_model_id": "o/earlier"})
    assert local.with_own_vlm(".").extra == {}
