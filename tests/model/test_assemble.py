"""The model put together: LoRA's targets, layers that are checkpointed."""

import pytest
import torch
from transformers import Qwen3_5ForConditionalGeneration

from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from satlisa.model.assemble import enable_gradient_checkpointing
from tests.helpers.model_fixtures import make_loader, make_model
from tests.helpers.runs import rows


def test_unknown_lora_targets_are_refused(tiny_config: ModelConfig) -> None:
    config = ModelConfig(**{**vars(tiny_config), "lora_target_modules": ["nowhere"]})
    with pytest.raises(SatlisaError, match="nowhere"):
        make_model(config)


def test_lora_leaves_the_vision_tower_alone(tiny_config: ModelConfig) -> None:
    """`linear_fc1` is a name of the vision tower only, `gate_proj` of the language model only."""
    config = ModelConfig(**{**vars(tiny_config), "lora_target_modules": ["linear_fc1", "gate_proj"]})
    names = [name for name, _ in make_model(config).named_parameters() if "lora_" in name]
    assert names and all("language_model" in name and "gate_proj" in name for name in names)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["q_proj", "k_proj", "v_proj", "o_proj"], 1_081_344),
        (["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], 6_389_760),
        (["gate_proj", "up_proj", "down_proj"], 5_308_416),
    ],
)
def test_other_lora_sets(shared_data, targets: list[str], expected: int) -> None:  # type: ignore[no-untyped-def]
    from transformers import Qwen3_5Config

    from satlisa.model.assemble import add_lora

    with torch.device("meta"):
        vlm = Qwen3_5ForConditionalGeneration(Qwen3_5Config.from_pretrained(shared_data / "qwen3.5-0.8b"))
        lora = add_lora(vlm, ModelConfig(lora_target_modules=targets))
    assert sum(p.numel() for n, p in lora.named_parameters() if "lora_" in n) == expected


def test_checkpointing_keeps_less_for_the_backward_pass(tiny_model) -> None:  # type: ignore[no-untyped-def]
    def kept() -> int:
        """Numbers that autograd keeps between forward and backward."""
        numbers = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal numbers
            numbers += tensor.numel()
            return tensor

        (step,) = make_loader(tiny_model, rows(4), 4).steps()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            tiny_model(step.batches[0])
        return numbers

    tiny_model.train()
    before = kept()
    enable_gradient_checkpointing(tiny_model.qwen.model.language_model)
    assert kept() < 0.7 * before
