"""Adapters of other programs: embedding matrices, trainable rows, prefixes, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from satlisa.errors import SatlisaError
from satlisa.model.satlisa import SatLisa
from satlisa.pretrained.model_directory import load_model
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
