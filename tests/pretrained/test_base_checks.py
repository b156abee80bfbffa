"""Base models of another kind, with tensors missing, of impossible sizes; the real ones pass."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, Qwen3_5Config, Qwen3_5ForConditionalGeneration, SamConfig, SamModel
from transformers import SamImageProcessor as SamImages

from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from satlisa.pretrained.base_checks import (
    check_config,
    check_folder,
    check_sam_images,
    check_tokenizer,
    check_vlm_images,
)
from satlisa.pretrained.base_models import load_parts

pytestmark = pytest.mark.integration


@pytest.fixture
def copies(tiny_config: ModelConfig, tmp_path: Path) -> dict[str, Path]:
    """Copies of both base models, to change."""
    sources = {"vlm": tiny_config.vlm_model_id, "sam": tiny_config.sam_model_id}
    return {part: Path(shutil.copytree(source, tmp_path / part)) for part, source in sources.items()}


def load(copies: dict[str, Path]) -> Any:
    config = ModelConfig(vlm_model_id=str(copies["vlm"]), sam_model_id=str(copies["sam"]))
    return load_parts(config, torch.float32)


def change(path: Path, **keys: Any) -> None:
    """Change keys of a JSON file; "a/b" is the key b inside of a."""
    content = json.loads(path.read_text())
    for name, value in keys.items():
        *outer, last = name.split("/")
        place = content
        for key in outer:
            place = place[key]
        place[last] = value
    path.write_text(json.dumps(content))


def test_swapped_models_are_told_apart_before_anything_is_loaded(
    copies: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("Qwen3_5ForConditionalGeneration", "SamModel"):
        monkeypatch.setattr(f"satlisa.pretrained.base_models.{name}.from_pretrained", lambda *_, **__: 1 / 0)
    with pytest.raises(
        SatlisaError, match=r"vlm_model_id: .*expected a model of the kind qwen3_5, found 'sam'.*SAM_MO"
    ):
        load({"vlm": copies["sam"], "sam": copies["vlm"]})
    with pytest.raises(
        SatlisaError, match=r"sam_model_id: .*expected a model of the kind sam, found 'qwen3_5'.*VLM_MO"
    ):
        load({"vlm": copies["vlm"], "sam": copies["vlm"]})
    with pytest.raises(SatlisaError, match=r"vlm_model_id: 'demo:sam'.*are the two swapped"):
        load_parts(ModelConfig(vlm_model_id="demo:sam", sam_model_id="demo:vlm"), torch.float32)
    for kind in ("qwen2_vl", None, ["sam"]):
        change(copies["sam"] / "config.json", model_type=kind)
        with pytest.raises(SatlisaError, match="expected a model of the kind sam, found"):
            load(copies)
    (copies["vlm"] / "adapter_config.json").write_text("{}")
    with pytest.raises(SatlisaError, match="expected a base model, found an adapter"):
        load(copies)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("vlm", "model.language_model.layers.2.mlp.up_proj.weight"),
        ("vlm", "model.language_model.embed_tokens.weight"),
        ("vlm", "model.language_model.layers.0.linear_attn.A_log"),
        ("vlm", "model.visual.merger.linear_fc2.bias"),
        ("sam", "mask_decoder.iou_token.weight"),
        ("sam", "shared_image_embedding.positional_embedding"),
        ("sam", "vision_encoder.pos_embed"),
    ],
)
def test_tensors_that_are_missing_or_of_another_shape(
    part: str, name: str, copies: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    path = copies[part] / "model.safetensors"
    state = load_file(path)
    tensor = state.pop(name)
    save_file(state, path, {"format": "pt"})
    with pytest.raises(SatlisaError, match=f"{part}_model_id: .*{name} is missing.*would be random"):
        load(copies)
    save_file(state | {name: tensor[..., :-1].contiguous()}, path, {"format": "pt"})
    shape = r"\(.*\)"
    with pytest.raises(SatlisaError, match=f"{part}_model_id: .*{name} is {shape}, by config.json {shape}"):
        load(copies)
    assert "LOAD REPORT" not in capfd.readouterr().err


def test_tensors_that_are_not_used_are_named_in_debug(
    copies: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = copies["sam"] / "model.safetensors"
    save_file(load_file(path) | {"extra.weight": torch.ones(2)}, path, {"format": "pt"})
    with caplog.at_level(logging.INFO, "satlisa"):
        load(copies)
    assert "extra" not in caplog.text
    with caplog.at_level(logging.DEBUG, "satlisa"):
        load(copies)
    assert "not used: extra.weight" in caplog.text


HOSTILE_CONFIGS = [
    *(("vlm", f"text_config/{name}", value) for name, value in (("hidden_size", 10**6), ("num_hidden_layers", 10**9))),
    *(("vlm", f"text_config/{name}", value) for name, value in (("vocab_size", 10**9), ("intermediate_size", 10**8))),
    *(("vlm", f"text_config/{name}", value) for name, value in (("head_dim", 10**9), ("linear_value_head_dim", 10**8))),
    *(("vlm", f"text_config/{name}", value) for name, value in (("eos_token_id", "end"), ("vocab_size", "many"))),
    *(("vlm", f"vision_config/{name}", value) for name, value in (("depth", 10**8), ("hidden_size", 10**6))),
    *(("vlm", f"vision_config/{name}", value) for name, value in (("patch_size", 10**4), ("hidden_size", -1))),
    *(("vlm", name, value) for name, value in (("num_labels", 10**9), ("image_token_id", 10**6), ("model_type", {}))),
    *(
        ("sam", f"vision_config/{name}", value)
        for name, value in (("hidden_size", 10**6), ("num_hidden_layers", 10**9))
    ),
    *(("sam", f"vision_config/{name}", value) for name, value in (("image_size", 20_000), ("patch_size", 1))),
    *(("sam", f"mask_decoder_config/{name}", value) for name, value in (("num_multimask_outputs", 10**8),)),
    *(("sam", f"mask_decoder_config/{name}", value) for name, value in (("mlp_dim", 10**9), ("iou_head_depth", 10**8))),
    *(("sam", f"prompt_encoder_config/{name}", value) for name, value in (("num_point_embeddings", 10**8),)),
    ("sam", "num_labels", 10**9),
]


@pytest.mark.parametrize(("part", "key", "value"), HOSTILE_CONFIGS)
def test_sizes_that_no_model_has(part: str, key: str, value: Any, copies: dict[str, Path]) -> None:
    change(copies[part] / "config.json", **{key: value})
    with pytest.raises(SatlisaError, match=f"{part}_model_id: "):
        load(copies)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        *(("sam", "size", {"longest_edge": edge}) for edge in (20_000, 63, 0)),
        *(("sam", "pad_size", {"height": height, "width": 64}) for height in (20_000, 32)),
        *(("sam", name, False) for name in ("do_pad", "do_resize", "do_normalize")),
        *(("sam", "image_std", std) for std in ([0, 1, 1], [1, 1], ["1", 1, 1])),
        *(("vlm", f"image_processor/{name}", 7) for name in ("patch_size", "merge_size", "temporal_patch_size")),
        *(("vlm", f"image_processor/{name}", False) for name in ("do_resize", "do_rescale")),
        *(("vlm", "image_processor/size", {"longest_edge": edge, "shortest_edge": 1}) for edge in ("x", -4)),
        ("vlm", "image_processor/image_mean", [0, float("nan"), 0]),
    ],
    ids=str,
)
def test_preprocessing_that_does_not_fit_the_model(part: str, key: str, value: Any, copies: dict[str, Path]) -> None:
    name = {"vlm": "processor_config.json", "sam": "preprocessor_config.json"}[part]
    change(copies[part] / name, **{key: value})
    with pytest.raises(SatlisaError, match=f"{part}_model_id: "):
        load(copies)


@pytest.mark.parametrize("ends", ["end", [258, "end"], 10**9, -1, 1.5, {"a": 1}, [[258]], [True]], ids=str)
def test_end_tokens_that_are_no_tokens(ends: Any, copies: dict[str, Path]) -> None:
    change(copies["vlm"] / "generation_config.json", eos_token_id=ends)
    with pytest.raises(SatlisaError):
        load(copies)


@pytest.mark.parametrize("token", ["<|im_end|>", "<|image_pad|>", "new"])
def test_tokens_beyond_the_matrix(token: str, copies: dict[str, Path]) -> None:
    path = copies["vlm"] / "tokenizer.json"
    content = json.loads(path.read_text())
    if token == "new":
        last = content["added_tokens"][-1]
        content["added_tokens"] += [{**last, "content": f"<new {n}>", "id": last["id"] + 1 + n} for n in range(60)]
    for entry in content["added_tokens"]:
        entry["id"] = 10**6 if entry["content"] == token else entry["id"]
    path.write_text(json.dumps(content))
    with pytest.raises(SatlisaError):
        load(copies)


def test_shards_outside_of_the_folder(copies: dict[str, Path]) -> None:
    path = copies["sam"] / "model.safetensors"
    path.rename(path.parent.parent / "elsewhere.safetensors")
    index = {
        "weight_map": dict.fromkeys(load_file(path.parent.parent / "elsewhere.safetensors"), "../elsewhere.safetensors")
    }
    (copies["sam"] / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(SatlisaError, match=r"expected names of files beside it, found '\.\./elsewhere"):
        load(copies)


def test_the_real_models_pass(shared_data: Path, tmp_path: Path) -> None:
    """By their configuration files, and the larger Qwen3.5 as far as their sizes are known from them."""
    vlm, sam = shared_data / "qwen3.5-0.8b", shared_data / "slimsam-77"
    for source, model_class in ((vlm, Qwen3_5ForConditionalGeneration), (sam, SamModel)):
        folder = tmp_path / source.name
        shutil.copytree(source, folder, copy_function=shutil.copyfile)
        with open(folder / "model.safetensors", "wb") as file:
            file.truncate(1_750_000_000)  # bytes that take no room, as many as the real weights have
        check_folder(folder)
        check_config(folder, model_class, is_local=True)
        check_config(folder, model_class, is_local=False)
    processor = AutoProcessor.from_pretrained(vlm)
    config = Qwen3_5Config.from_pretrained(vlm)
    check_vlm_images(processor, config.vision_config)
    check_sam_images(SamImages.from_pretrained(sam), SamConfig.from_pretrained(sam).vision_config)
    with torch.device("meta"):
        model = Qwen3_5ForConditionalGeneration(config)
    model.generation_config.eos_token_id = [248046, 248044]
    check_tokenizer(processor, model, "")
    grown = json.loads((vlm / "config.json").read_text())
    grown["text_config"] |= {
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 32,
        "layer_types": None,
    }
    folder = tmp_path / "9b"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(grown))
    check_config(folder, Qwen3_5ForConditionalGeneration, is_local=False)
