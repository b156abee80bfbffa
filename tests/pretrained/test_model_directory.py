"""Model directories: bit-equal reloads, foreign spellings, refusals."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from satlisa.inference.generation import answer
from satlisa.model.satlisa import SatLisa
from satlisa.pretrained.model_directory import find_model_dir, load_model, save_model
from satlisa.pretrained.state_matching import match_state
from tests.helpers.model_fixtures import batch_of, make_model, make_samples

LAYOUT = {
    "model_config.json",
    "vlm_lora",
    "seg_projector.pt",
    "sam_mask_decoder.pt",
    "tokenizer",
    "seg_token.safetensors",
}


@pytest.fixture
def saved(tiny_config: ModelConfig, tmp_path: Path) -> tuple[SatLisa, Path]:
    """A model after a few steps of training, and its directory."""
    model = make_model(tiny_config, seed=5)
    batch = batch_of(model, make_samples(4))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        model(batch).losses.total(model.config, 10, 3).backward()
        optimizer.step()
        optimizer.zero_grad()
    save_model(model, tmp_path / "run")
    return model.eval(), tmp_path / "run"


def outputs(model: SatLisa) -> list[Tensor]:
    samples = make_samples(4)
    with torch.no_grad():
        found = model(batch_of(model, samples))
    answers = answer(model, [s.image for s in samples], [s.turns for s in samples], max_new_tokens=6)
    ids = [torch.tensor(a.token_ids) for a in answers]
    return [found.losses.text, found.losses.bce, found.mask_logits, found.scores, *ids]


def test_layout_and_bit_equal_reload(saved: tuple[SatLisa, Path]) -> None:
    model, folder = saved
    assert {path.name for path in folder.iterdir()} == LAYOUT
    assert {p.name for p in (folder / "vlm_lora").iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    again = load_model(folder, "cpu")
    assert not again.training
    for a, b in zip(outputs(model), outputs(again), strict=True):
        assert torch.equal(a, b)


def test_a_copied_directory_works_elsewhere(saved: tuple[SatLisa, Path], tmp_path: Path) -> None:
    folder = saved[1].rename(tmp_path / "elsewhere")
    assert load_model(folder, "cpu").seg_token_id == 263


def test_saving_twice_replaces(saved: tuple[SatLisa, Path]) -> None:
    model, folder = saved
    with torch.no_grad():
        model.seg_row += 1
    save_model(model, folder)
    assert {path.name for path in folder.iterdir()} == LAYOUT
    assert torch.equal(load_model(folder, "cpu").seg_row, model.seg_row)


def rename_projector(state: dict[str, Tensor], spelling: str) -> object:
    names = ["0.weight", "0.bias", "2.weight", "2.bias"]
    values = [state[name] for name in names]
    if spelling == "mlp":
        return dict(zip(["mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias"], values, strict=True))
    if spelling == "fc":
        return dict(zip(["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"], values, strict=True))
    if spelling == "wrapped":
        return {"epoch": 3, "state_dict": {f"module.{name}": state[name] for name in names}}
    if spelling == "wrapped beside settings and optimizer":
        optimizer = {"state": {0: {"exp_avg": values[0], "exp_avg_sq": values[0]}}, "param_groups": [{"lr": 1e-4}]}
        settings = {"hidden": 24, "step": torch.tensor(3)}
        return {"config": settings, "step": torch.tensor(3), "optimizer": optimizer, "model": dict(state)}
    if spelling == "last layer first":
        return {name: state[name] for name in ("2.weight", "2.bias", "0.weight", "0.bias")}
    if spelling == "weights first":
        return {f"proj.layers.{n}": state[m] for n, m in [("0.weight", "0.weight"), ("1.weight", "2.weight")]} | {
            f"proj.layers.{n}": state[m] for n, m in [("0.bias", "0.bias"), ("1.bias", "2.bias")]
        }
    return {"model": {"text_hidden_fcs": {f"0.{name}": state[name] for name in names}}}


@pytest.mark.parametrize(
    "spelling",
    ["mlp", "fc", "wrapped", "wrapped beside settings and optimizer", "weights first", "last layer first", "nested"],
)
def test_foreign_projectors(saved: tuple[SatLisa, Path], spelling: str) -> None:
    model, folder = saved
    torch.save(rename_projector(model.projector.state_dict(), spelling), folder / "seg_projector.pt")
    (folder / "model_config.json").write_text(
        json.dumps({k: v for k, v in model.config.to_dict().items() if k.endswith("_model_id")})
    )  # published configurations may hold few of our keys; the projector's width comes from its tensors
    again = load_model(folder, "cpu")
    for name, tensor in model.projector.state_dict().items():
        assert torch.equal(again.projector.state_dict()[name], tensor), name


def segment_anything_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The decoder as facebookresearch/segment-anything names and orders it."""
    renamed = {}
    for name, tensor in state.items():
        for old, new in [
            ("upscale_conv1.", "output_upscaling.0."),
            ("upscale_layer_norm.", "output_upscaling.1."),
            ("upscale_conv2.", "output_upscaling.3."),
            ("layer_norm_final_attn", "norm_final_attn"),
            ("layer_norm", "norm"),
        ]:
            name = name.replace(old, new)
        if name.startswith(("output_hypernetworks", "iou_prediction_head")):
            name = (
                name.replace("layers.0.", "layers.1.")
                .replace("proj_in.", "layers.0.")
                .replace("proj_out.", "layers.2.")
            )
        renamed[name] = tensor
    return dict(sorted(renamed.items(), key=lambda item: not item[0].startswith("transformer")))


@pytest.mark.parametrize(
    "spelling",
    ["prefix", "segment-anything", "segment-anything with prefix", "wrapped", "whole SAM", "other names in order"],
)
def test_foreign_decoders(saved: tuple[SatLisa, Path], spelling: str) -> None:
    model, folder = saved
    state: dict[str, object] = dict(model.segmenter.sam.mask_decoder.state_dict())
    if "segment-anything" in spelling:
        state = dict(segment_anything_names(state))  # type: ignore[arg-type]
    if "prefix" in spelling:
        state = {f"mask_decoder.{name}": tensor for name, tensor in state.items()}
    if spelling == "wrapped":
        state = {"step": 7, "mask_decoder": state}
    if spelling == "whole SAM":  # what is no part of the decoder is left out
        state = dict(model.segmenter.sam.state_dict())
    if spelling == "other names in order":
        names = {name: name.replace("self_attn", "attn_self").replace("_proj", "_lin") for name in state}
        assert sum(new != old for old, new in names.items()) > 20
        state = {names[name]: tensor for name, tensor in state.items()}
    torch.save(state, folder / "sam_mask_decoder.pt")
    again = load_model(folder, "cpu").segmenter.sam.mask_decoder.state_dict()
    for name, tensor in model.segmenter.sam.mask_decoder.state_dict().items():
        assert torch.equal(again[name], tensor), name


def test_ambiguous_tensors_are_refused_with_both_lists() -> None:
    expected = {"0.weight": torch.zeros(4, 4), "2.weight": torch.zeros(4, 4)}
    with pytest.raises(SatlisaError, match=r"0\.weight \(4, 4\)[\s\S]*layer\.9 \(4, 4\)"):
        match_state(expected, {"layer.9": torch.zeros(4, 4), "layer.1": torch.zeros(4, 4)}, "x.pt")
    with pytest.raises(SatlisaError, match="cannot tell"):
        match_state(expected, {"a": torch.zeros(4, 4)}, "x.pt")
    with pytest.raises(SatlisaError, match="cannot tell"):
        match_state(expected, {"a": torch.zeros(4, 4), "b": torch.zeros(4, 4), "c": torch.zeros(1)}, "x.pt")


@pytest.mark.parametrize(
    "names",
    [
        ("attn.to_k.weight", "attn.to_q.weight"),  # in this order they would be taken for each other
        ("attn.key.weight", "attn.query.weight"),
        ("a.q_proj.bias", "a.k_proj.weight"),
    ],
)
def test_an_order_that_the_names_contradict_is_refused(names: tuple[str, str]) -> None:
    expected = {"q_proj.weight": torch.zeros(4, 4), "k_proj.weight": torch.zeros(4, 4)}
    with pytest.raises(SatlisaError, match="cannot tell"):
        match_state(expected, dict.fromkeys(names, torch.zeros(4, 4)), "x.pt")
    right = match_state(expected, {"x.q_lin.weight": torch.zeros(4, 4), "x.k_lin.weight": torch.ones(4, 4)}, "x.pt")
    assert right["k_proj.weight"].sum() == 16


def test_two_sets_that_fit_are_refused(saved: tuple[SatLisa, Path]) -> None:
    state = saved[0].projector.state_dict()
    both = {"model": state, "ema": {name: tensor + 1 for name, tensor in state.items()}}
    torch.save(both, saved[1] / "seg_projector.pt")
    with pytest.raises(SatlisaError, match="cannot tell"):
        load_model(saved[1], "cpu")


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


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "vlm_lora" / "adapter_model.safetensors").unlink(),
        lambda folder: (folder / "vlm_lora" / "adapter_config.json").write_text("{"),
        lambda folder: cut(folder / "vlm_lora" / "adapter_model.safetensors"),
        lambda folder: cut(folder / "seg_token.safetensors"),
        lambda folder: cut(folder / "seg_projector.pt"),
        lambda folder: cut(folder / "sam_mask_decoder.pt"),
        lambda folder: [path.unlink() for path in (folder / "tokenizer").iterdir()],
        lambda folder: cut(folder / "model_config.json"),
        lambda folder: torch.save([1, 2], folder / "seg_projector.pt"),
    ],
)
def test_damaged_files_are_named(saved: tuple[SatLisa, Path], damage: Callable[[Path], object]) -> None:
    damage(saved[1])
    with pytest.raises(SatlisaError, match=str(saved[1])):
        load_model(saved[1], "cpu")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_damaged_base_model_is_named(tiny_config: ModelConfig, tmp_path: Path) -> None:
    shutil.copytree(tiny_config.vlm_model_id, tmp_path / "vlm")
    cut(tmp_path / "vlm" / "model.safetensors")
    with pytest.raises(SatlisaError, match=r"vlm_model_id: cannot load .*VLM_MODEL"):
        make_model(ModelConfig(**{**vars(tiny_config), "vlm_model_id": str(tmp_path / "vlm")}))


def test_pickles_are_not_executed(saved: tuple[SatLisa, Path], tmp_path: Path) -> None:
    class Planted:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "planted"),)

    for name in ("seg_projector.pt", "sam_mask_decoder.pt"):
        good = (saved[1] / name).read_bytes()
        torch.save({"0.weight": Planted()}, saved[1] / name)
        with pytest.raises(SatlisaError, match=f"{name}.*could run code"):
            load_model(saved[1], "cpu")
        (saved[1] / name).write_bytes(good)
    assert not (tmp_path / "planted").exists()


def test_wrong_places(tmp_path: Path, saved: tuple[SatLisa, Path]) -> None:
    with pytest.raises(SatlisaError, match="no such model directory"):
        find_model_dir(tmp_path / "nowhere")
    with pytest.raises(SatlisaError, match="vlm_lora"):
        find_model_dir(tmp_path)
    (saved[1] / "seg_projector.pt").unlink()
    with pytest.raises(SatlisaError, match=r"seg_projector\.pt missing"):
        load_model(saved[1], "cpu")


def test_hub_ids_go_through_snapshot_download(saved: tuple[SatLisa, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        "satlisa.pretrained.model_directory.snapshot_download", lambda name: asked.append(name) or str(saved[1])
    )
    assert find_model_dir("someone/satellite-model") == saved[1]
    assert asked == ["someone/satellite-model"]


def test_a_tokenizer_of_another_model_is_noticed(saved: tuple[SatLisa, Path]) -> None:
    config = json.loads((saved[1] / "model_config.json").read_text())
    (saved[1] / "model_config.json").write_text(json.dumps({**config, "seg_token_id": 7}))
    with pytest.raises(SatlisaError, match=r"token 7.*263"):
        load_model(saved[1], "cpu")


def test_unknown_keys_survive(saved: tuple[SatLisa, Path]) -> None:
    config = json.loads((saved[1] / "model_config.json").read_text())
    (saved[1] / "model_config.json").write_text(json.dumps({**config, "their_key": [1, 2]}))
    assert load_model(saved[1], "cpu").config.to_dict()["their_key"] == [1, 2]
