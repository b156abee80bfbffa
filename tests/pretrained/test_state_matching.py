"""Foreign names of tensors: which are understood, which are refused."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from satlisa.errors import SatlisaError
from satlisa.model.satlisa import SatLisa
from satlisa.pretrained.model_directory import load_model
from satlisa.pretrained.state_matching import match_state


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


@pytest.mark.integration
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


@pytest.mark.integration
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
