"""Adapters of other programs: embedding matrices, trainable rows, prefixes, and what is refused."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from satlisa.model.satlisa import SatLisa
from satlisa.pretrained.model_directory import load_model
from tests.helpers.foreign_adapters import logits_of, train_with_peft
from tests.helpers.saved_models import outputs


def adapter_of(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    path = folder / "vlm_lora" / "adapter_model.safetensors"
    return path, load_file(path)


def test_seg_row_from_the_base_matrix(saved: tuple[SatLisa, Path]) -> None:
    model, folder = saved
    (folder / "seg_token.safetensors").unlink()
    assert torch.equal(load_model(folder, "cpu").seg_row, model.qwen.get_input_embeddings().weight[263])


@pytest.mark.parametrize("rows", [320, 264])
def test_an_adapter_with_an_embedding_matrix(saved: tuple[SatLisa, Path], rows: int) -> None:
    """All rows, or as many as `resize_token_embeddings(len(tokenizer))` leaves."""
    model, folder = saved
    (folder / "seg_token.safetensors").unlink()
    path, state = adapter_of(folder)
    matrix = torch.randn(rows, 32)
    name = "base_model.model.model.language_model.embed_tokens.weight"
    save_file(state | {name: matrix}, path, metadata={"format": "pt"})
    again = load_model(folder, "cpu")
    assert torch.equal(again.seg_row, matrix[263])
    embedding = again.qwen.get_input_embeddings().weight
    assert torch.equal(embedding[:rows], matrix) and again.qwen.lm_head.weight is embedding
    assert torch.equal(embedding[rows:], model.qwen.get_input_embeddings().weight[rows:])


@pytest.mark.parametrize("indices", [[5, 263], {"embed_tokens": [263, 7]}, [263]])
def test_an_adapter_with_trainable_rows(saved: tuple[SatLisa, Path], indices: object) -> None:
    folder = saved[1]
    (folder / "seg_token.safetensors").unlink()
    settings = json.loads((folder / "vlm_lora" / "adapter_config.json").read_text())
    settings["trainable_token_indices"] = indices
    (folder / "vlm_lora" / "adapter_config.json").write_text(json.dumps(settings))
    listed = indices["embed_tokens"] if isinstance(indices, dict) else indices
    path, state = adapter_of(folder)
    rows = torch.randn(len(listed), 32)  # type: ignore[arg-type]
    name = "base_model.model.model.language_model.embed_tokens.token_adapter.trainable_tokens_delta"
    save_file(state | {name: rows}, path, metadata={"format": "pt"})
    assert torch.equal(load_model(folder, "cpu").seg_row, rows[listed.index(263)])  # type: ignore[attr-defined]


def test_an_adapter_behind_another_prefix(saved: tuple[SatLisa, Path]) -> None:
    """Trained on the language model alone, whose names begin elsewhere."""
    model, folder = saved
    path, state = adapter_of(folder)
    renamed = {name.replace("model.language_model.", "model."): tensor for name, tensor in state.items()}
    assert renamed.keys().isdisjoint(state)
    save_file(renamed, path, metadata={"format": "pt"})
    for a, b in zip(outputs(model), outputs(load_model(folder, "cpu")), strict=True):
        assert torch.equal(a, b)


@pytest.mark.integration
@pytest.mark.parametrize("change", ["one is missing", "one is another's", "another shape"])
def test_lora_tensors_that_do_not_fit_are_refused(saved: tuple[SatLisa, Path], change: str) -> None:
    path, state = adapter_of(saved[1])
    name = sorted(state)[0]
    tensor = state.pop(name)
    if change == "one is another's":
        state[name.replace("lora_A", "lora_C")] = tensor
    if change == "another shape":
        state[name] = tensor[:, :-1].contiguous()
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(SatlisaError, match=r"LoRA tensors[\s\S]*expected: [\s\S]*found: "):
        load_model(saved[1], "cpu")


def test_lora_on_the_head_is_refused(saved: tuple[SatLisa, Path]) -> None:
    """The head's matrix is read as it is; such layers would be left out without a word."""
    path, state = adapter_of(saved[1])
    state["base_model.model.lm_head.lora_A.weight"] = torch.ones(2, 32)
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(SatlisaError, match="found it on the LM head too"):
        load_model(saved[1], "cpu")


FULL = "model.language_model.layers.3.self_attn.q_proj"


@pytest.mark.integration
@pytest.mark.parametrize(
    "layers",
    [
        {"r": 512},
        {"use_rslora": True},
        {"use_dora": True},
        {"target_modules": "all-linear"},
        {"target_modules": ["gate_proj", "up_proj", "down_proj"]},
        {"target_modules": [FULL, "layers.1.linear_attn.out_proj"]},
        {"target_modules": r".*(language_model).*(self_attn|mlp)\.(q_proj|up_proj)"},
        {"target_modules": r".*language_model\..*\.(q_proj|out_proj)"},
        {"exclude_modules": ["layers.1.linear_attn.out_proj"]},
        {"layers_to_transform": [3], "layers_pattern": "layers"},
        {"rank_pattern": {"q_proj": 7}},
        {"rank_pattern": {f"^{FULL}": 3, "out_proj": 2}, "alpha_pattern": {"layers.3.self_attn.q_proj": 64}},
        {"alpha_pattern": {"self_attn.q_proj": 1, "out_proj": 0.5}, "use_rslora": True},
        {"lora_alpha": 1, "bias": "lora_only", "target_modules": ["qkv", "q_proj"]},
    ],
    ids=str,
)
def test_layers_ranks_and_scales_are_those_of_peft(
    layers: dict[str, Any], saved: tuple[SatLisa, Path], tiny_config: ModelConfig
) -> None:
    expected = train_with_peft(tiny_config, saved[1], layers)
    model = load_model(saved[1], "cpu")
    found = logits_of(model)
    assert torch.allclose(found, expected, atol=1e-4), (found - expected).abs().max()
    in_file = {name: tensor for name, tensor in adapter_of(saved[1])[1].items() if "lora" in name}
    own = {
        name.replace(".default", "").replace("vector.weight", "vector"): p
        for name, p in model.vlm.named_parameters()
        if "lora" in name
    }
    assert own.keys() == in_file.keys() and all(torch.equal(own[name], tensor) for name, tensor in in_file.items())


SLOW = "(" * 12 + "a" + "+)" * 12 + "$"  # a regular expression that backtracks for ever on "aaaa…b"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"r": 10**6}, "r or rank_pattern 1000000, tensors of rank 16"),
        ({"r": 15}, "r or rank_pattern 15, tensors of rank 16"),
        ({"r": -16}, "not the settings of a LoRA adapter|rank_pattern -16, tensors of rank 16"),
        ({"rank_pattern": {"q_proj": 10**7}}, "rank_pattern 10000000, tensors of rank 16"),
        ({"rank_pattern": {f"{n}": 10**7 for n in range(20_000)} | {"q_proj": "16"}}, "rank_pattern '16'"),
        ({"rank_pattern": {SLOW: 16}}, r"rank_pattern: expected names of layers, found the regular expression"),
        ({"alpha_pattern": {".*": 10**300}}, r"alpha_pattern: expected names of layers, found the regular exp"),
        ({"alpha_pattern": ["q_proj"]}, "alpha_pattern: expected values by names of layers"),
        ({"alpha_pattern": {"q_proj": "1"}}, "lora_alpha: expected a number, found '1'"),
        ({"alpha_pattern": {"q_proj": float("nan")}}, "lora_alpha: expected a number, found nan"),
        ({"lora_alpha": float("inf")}, "lora_alpha: expected a number, found inf"),
        ({"lora_alpha": None}, "lora_alpha: expected a number, found None"),
        ({"lora_alpha": 1e308}, "lora_alpha: expected a number, found 1e\\+308; it may be 65,504 at most"),
        ({"alpha_pattern": {"q_proj": -(10**300)}}, "lora_alpha: expected a number, found -1000"),
        ({"target_modules": [SLOW]}, r"LoRA tensors are not those of the base model"),
        ({"target_modules": ["q_proj"]}, r"LoRA tensors are not those of the base model"),
        ({"target_modules": [["q_proj"], 5]}, r"LoRA tensors are not those|not the settings of a LoRA adapter"),
        ({"lora_dropout": 7}, "does not fit the base model|not the settings of a LoRA adapter"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_settings_that_are_not_those_of_the_tensors(
    settings: dict[str, Any], said: str, saved: tuple[SatLisa, Path]
) -> None:
    path = saved[1] / "vlm_lora" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    start = time.perf_counter()
    with pytest.raises(SatlisaError, match=said):
        load_model(saved[1], "cpu")
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("key", ["target_modules", "exclude_modules"])
def test_no_regular_expression_is_run(key: str, saved: tuple[SatLisa, Path]) -> None:
    """The tensors tell which layers they are of."""
    path = saved[1] / "vlm_lora" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: r"(([\w.]+)+)+!"}))
    for a, b in zip(outputs(saved[0]), outputs(load_model(saved[1], "cpu")), strict=True):
        assert torch.equal(a, b)


def test_integers_are_no_weights(saved: tuple[SatLisa, Path]) -> None:
    path, state = adapter_of(saved[1])
    save_file({name: tensor.to(torch.int8) for name, tensor in state.items()}, path, metadata={"format": "pt"})
    with pytest.raises(SatlisaError, match=r"expected floating point numbers, found torch\.int8"):
        load_model(saved[1], "cpu")
