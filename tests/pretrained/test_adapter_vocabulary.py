"""Adapters that train the vocabulary: loaded, the model computes what PEFT computes with them; others are refused."""

import json
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

BOTH = ["embed_tokens", "lm_head"]


@pytest.mark.parametrize(
    "layers",
    [
        {},
        {"modules_to_save": ["embed_tokens"]},
        {"modules_to_save": ["lm_head"]},
        {"modules_to_save": BOTH},
        {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
        {"trainable_token_indices": [263]},
        {"trainable_token_indices": [5, 263, 300]},
        {"trainable_token_indices": [9, 7]},
        {"trainable_token_indices": {"embed_tokens": [263, 7, 5]}},
        {"trainable_token_indices": {"lm_head": [263, 7]}},
        {"trainable_token_indices": {"embed_tokens": [263, 7], "lm_head": [263, 7]}},
        {"trainable_token_indices": {"embed_tokens": [263, 7], "lm_head": [9, 263, 12]}},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj", "embed_tokens"], "use_rslora": True, "modules_to_save": ["lm_head"]},
    ],
    ids=str,
)
def test_input_and_output_are_those_of_peft(
    layers: dict[str, Any], saved: tuple[SatLisa, Path], tiny_config: ModelConfig
) -> None:
    expected = train_with_peft(tiny_config, saved[1], layers)
    found = logits_of(load_model(saved[1], "cpu"))
    assert torch.allclose(found, expected, atol=1e-4), (found - expected).abs().max()


def test_equal_matrices_stay_one(saved: tuple[SatLisa, Path], tiny_config: ModelConfig) -> None:
    """Two copies of a real vocabulary are a gigabyte."""
    expected = train_with_peft(tiny_config, saved[1], {"modules_to_save": BOTH}, common=True)
    model = load_model(saved[1], "cpu")
    assert torch.allclose(logits_of(model), expected, atol=1e-4)
    assert model.qwen.lm_head.weight is model.qwen.get_input_embeddings().weight and model.seg_head_row is None


def test_our_own_row_is_of_both(saved: tuple[SatLisa, Path], tiny_config: ModelConfig) -> None:
    """`seg_token.safetensors` goes before the adapter's rows."""
    own = (saved[1] / "seg_token.safetensors").read_bytes()
    train_with_peft(tiny_config, saved[1], {"modules_to_save": ["lm_head"]})
    (saved[1] / "seg_token.safetensors").write_bytes(own)
    model = load_model(saved[1], "cpu")
    assert torch.equal(model.seg_row, saved[0].seg_row) and model.seg_head_row is None


def change_tensors(folder: Path, **tensors: Tensor) -> None:
    path = folder / "vlm_lora" / "adapter_model.safetensors"
    names = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    save_file(load_file(path) | names, path, {"format": "pt"})


def change_settings(folder: Path, **settings: Any) -> None:
    path = folder / "vlm_lora" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


INPUT = "base_model__model__model__language_model__embed_tokens__"
ROWS = INPUT + "token_adapter__trainable_tokens_delta"


@pytest.mark.parametrize(
    ("settings", "tensors", "said"),
    [
        ({"modules_to_save": ["norm"]}, {}, "modules_to_save names norm"),
        ({"modules_to_save": ["model.visual.merger", "embed_tokens"]}, {}, "modules_to_save names merger"),
        ({"modules_to_save": ["lm_head"]}, {}, "modules_to_save names lm_head, but its matrix is not there"),
        ({"modules_to_save": BOTH}, {INPUT + "weight": (320, 32)}, "names lm_head, but its matrix is not there"),
        ({}, {INPUT + "weight": (320, 31)}, "expected a vocabulary matrix of 32 columns"),
        ({}, {INPUT + "weight": (32,)}, "expected a vocabulary matrix of 32 columns"),
        ({}, {INPUT + "bias": (320, 32)}, "expected a vocabulary matrix of 32 columns"),
        ({}, {INPUT + "weight": (320, 32), "lm_head__embed_tokens__weight": (320, 32)}, "two different matrices"),
        ({}, {ROWS: (2, 32)}, "trainable_token_indices does not name"),
        ({"trainable_token_indices": [5, 7]}, {}, r"names 2 tokens of embed_tokens: expected their rows \(2, 32\)"),
        ({"trainable_token_indices": [5, 7, 9]}, {ROWS: (2, 32)}, r"found .*trainable_tokens_delta \(2, 32\)"),
        ({"trainable_token_indices": [5, 320]}, {ROWS: (2, 32)}, "expected different tokens below 320"),
        ({"trainable_token_indices": [5, -1]}, {ROWS: (2, 32)}, "expected different tokens below 320"),
        ({"trainable_token_indices": [5, 5]}, {ROWS: (2, 32)}, "expected different tokens below 320"),
        ({"trainable_token_indices": [5, "7"]}, {ROWS: (2, 32)}, "expected different tokens below 320"),
        ({"trainable_token_indices": {"norm": [5, 7]}}, {ROWS: (2, 32)}, "tokens below 320 of embed_tokens or lm_head"),
        ({"trainable_token_indices": [5, 7]}, {ROWS: (2, 32), INPUT + "weight": (320, 32)}, "another row of token 5"),
    ],
    ids=str,
)
def test_what_does_not_belong_together_is_refused_by_name(
    settings: dict[str, Any], tensors: dict[str, tuple[int, ...]], said: str, saved: tuple[SatLisa, Path]
) -> None:
    change_settings(saved[1], **settings)
    change_tensors(saved[1], **{name: torch.randn(shape) for name, shape in tensors.items()})
    with pytest.raises(SatlisaError, match=said):
        load_model(saved[1], "cpu")


def test_a_matrix_and_equal_rows_agree(saved: tuple[SatLisa, Path]) -> None:
    matrix = torch.randn(320, 32)
    change_settings(saved[1], trainable_token_indices=[5, 263])
    change_tensors(saved[1], **{INPUT + "weight": matrix, ROWS: matrix[[5, 263]].contiguous()})
    (saved[1] / "seg_token.safetensors").unlink()
    assert torch.equal(load_model(saved[1], "cpu").seg_row, matrix[263])


def test_lora_on_a_resized_embedding_is_named(saved: tuple[SatLisa, Path], tiny_config: ModelConfig) -> None:
    train_with_peft(tiny_config, saved[1], {"target_modules": ["q_proj", "embed_tokens"]})
    change_tensors(saved[1], **{INPUT + "lora_embedding_A": torch.ones(4, 264)})
    with pytest.raises(SatlisaError, match=r"LoRA on embed_tokens, for a vocabulary of another size .* 320 rows"):
        load_model(saved[1], "cpu")
