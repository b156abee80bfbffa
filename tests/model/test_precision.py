"""Float16 runs: what computes in float32, and that large activations neither overflow nor change the loss."""

from collections.abc import Callable

import pytest
import torch

from satlisa.config import ModelConfig
from satlisa.model.assemble import assemble
from satlisa.model.satlisa import SatLisa
from satlisa.pretrained.base_models import load_parts
from tests.helpers.model_fixtures import batch_of, make_samples

SCALE = 2.0**16  # initial scale of torch's GradScaler
Plant = Callable[[SatLisa], None]


def made(config: ModelConfig, dtype: torch.dtype, plant: Plant) -> SatLisa:
    torch.manual_seed(0)
    model = assemble(load_parts(config, dtype), config, dtype).train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
        plant(model)
    return model


def residual_of_an_mlp(model: SatLisa) -> None:
    """Two channels of the text stream at 1e5 and more, as large models have."""
    mlp = model.qwen.model.language_model.layers[0].mlp
    mlp.gate_proj.weight *= 30
    mlp.up_proj.weight *= 30
    mlp.down_proj.weight[[3, 7]] *= 1e5


def residual_of_an_attention(model: SatLisa) -> None:
    layers = model.qwen.model.language_model.layers
    attention = next(layer.self_attn for layer in layers if hasattr(layer, "self_attn"))
    attention.o_proj.base_layer.weight[5] *= 1e7


def product_of_gate_and_up(model: SatLisa) -> None:
    """Each is below 65,504, their product is not."""
    mlp = model.qwen.model.language_model.layers[1].mlp
    mlp.gate_proj.weight[0] *= 3e3 / mlp.gate_proj.weight[0].norm()
    mlp.up_proj.weight[0] = mlp.gate_proj.weight[0]


def residual_of_the_vision_tower(model: SatLisa) -> None:
    block = model.qwen.model.visual.blocks[0]
    block.mlp.linear_fc2.bias[2] = 3e4
    block.attn.proj.bias[2] = 6e4
    model.qwen.model.visual.patch_embed.proj.bias[2] = 6e4


def image_embedding_of_sam(model: SatLisa) -> None:
    model.segmenter.sam.vision_encoder.layers[0].mlp.lin2.bias[1] = 1e5


PLANTS = [
    residual_of_an_mlp,
    residual_of_an_attention,
    product_of_gate_and_up,
    residual_of_the_vision_tower,
    image_embedding_of_sam,
]


def step(model: SatLisa, scale: float = 1.0) -> tuple[float, dict[str, torch.Tensor]]:
    batch = batch_of(model, make_samples(3))
    losses = model(batch).losses
    loss = losses.total(model.config, losses.num_tokens, losses.num_masks)
    (loss * scale).backward()
    gradients = {n: p.grad / scale for n, p in model.named_parameters() if p.requires_grad and p.grad is not None}
    return loss.item(), gradients


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_large_activations_in_float16(tiny_config: ModelConfig, plant: Plant) -> None:
    expected, expected_gradients = step(made(tiny_config, torch.float32, plant))
    loss, gradients = step(made(tiny_config, torch.float16, plant), SCALE)
    assert loss == pytest.approx(expected, rel=2e-2)
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert gradients.keys() == expected_gradients.keys()
    ours, theirs = (torch.cat([g[n].flatten() for n in gradients]) for g in (gradients, expected_gradients))
    assert (ours - theirs).norm() < 0.05 * theirs.norm()


def test_the_plants_are_large(tiny_config: ModelConfig) -> None:
    """In float32 the streams really pass what float16 holds."""
    seen: dict[str, float] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            seen[name] = max(seen.get(name, 0), *(t.abs().max().item() for t in (inputs[0], output)))

        return hook

    for plant in PLANTS:
        model = made(tiny_config, torch.float32, plant)
        language, vision = model.qwen.model.language_model, model.qwen.model.visual
        modules = [language.norm, vision.merger.norm, language.layers[1].mlp.down_proj]
        modules.append(model.segmenter.sam.vision_encoder.layers[1].layer_norm1)
        for module in modules:
            module.register_forward_hook(note(plant.__name__))
        step(model)
    assert len(seen) == len(PLANTS) and min(seen.values()) > 65_504, seen


def test_what_computes_in_float32(tiny_config: ModelConfig) -> None:
    """Streams and what writes into them; what reads a normalized input stays in float16."""
    model = made(tiny_config, torch.float16, lambda _: None)
    outputs: dict[str, torch.dtype] = {}
    for name, module in model.named_modules():
        module.register_forward_hook(
            lambda _, __, output, name=name: outputs.__setitem__(name, getattr(output, "dtype", None))
        )
    step(model)

    def dtypes(*ends: str) -> set[torch.dtype]:
        found = {dtype for name, dtype in outputs.items() if name.endswith(ends) and "mask_decoder" not in name}
        assert found, ends
        return found

    writers = ("o_proj", "down_proj", "linear_attn", "attn.proj", "linear_fc2", "patch_embed", "layernorm", "norm1")
    for end in (*writers, "projector", "vision_encoder.layers.0.mlp", "language_model.layers.1.mlp"):
        assert dtypes(end) == {torch.float32}, end
    for end in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "up_proj", "attn.qkv", "linear_fc1"):
        of_vlm = {n: d for n, d in outputs.items() if n.startswith("vlm.") and n.endswith(end)}
        assert set(of_vlm.values()) == {torch.float16}, end
    assert {p.dtype for n, p in model.named_parameters() if "up_proj" in n or "embed_tokens" in n} == {torch.float16}
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_other_precisions_are_left_alone(tiny_config: ModelConfig, dtype: torch.dtype) -> None:
    model = made(tiny_config, dtype, lambda _: None)
    frozen = {p.dtype for n, p in model.vlm.named_parameters() if not p.requires_grad}
    assert frozen == {dtype}
    assert model.embed(torch.tensor([[1, 2]])).dtype == dtype
