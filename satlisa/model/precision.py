"""Which layers compute in float32 in a float16 run, decided here alone.

Float16 ends at 65,504, and large language models have channels of the residual stream beyond that. So:

- float32: what writes into a residual stream, and thereby the stream itself and its norms; the product inside the gated
  MLP; the gated delta-net layers, whose gradients are reported to become NaN; SAM and the projector.
- float16: what reads a normalized input (queries, keys, values, gate, up), attention between those, and the LM head.

The weights of Qwen3.5-0.8B take 2.37 GB this way, 1.71 GB in float16 alone.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from satlisa.model.qwen import modeling_qwen3_5 as qwen

# Modules that compute in float32 as a whole, by class and by name; linear layers that write into a stream, by owner.
_WHOLE = (qwen.Qwen3_5GatedDeltaNet, qwen.Qwen3_5VisionPatchEmbed, nn.LayerNorm)
_WHOLE_PARTS = ("projector", "segmenter.sam.vision_encoder", "segmenter.sam.mask_decoder")
_WRITERS = {
    qwen.Qwen3_5Attention: "o_proj",
    qwen.Qwen3_5MLP: "down_proj",
    qwen.Qwen3_5VisionAttention: "proj",
    qwen.Qwen3_5VisionMLP: "linear_fc2",
    qwen.Qwen3_5VisionPatchMerger: "linear_fc2",
}


def layer_dtype(compute_dtype: torch.dtype) -> torch.dtype:
    """The dtype of residual streams and of the layers named above: float32 in float16 runs, else `compute_dtype`."""
    return torch.float32 if compute_dtype == torch.float16 else compute_dtype


def keep_in_float32(model: nn.Module) -> None:
    """Make a `SatLisa` for float16 runs compute these layers in float32, in place; after LoRA has been added.

    Their weights become float32, and autocast is disabled inside them. The stream follows from its beginning
    (`SatLisa.embed`), because float32 plus float16 is float32.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, _WHOLE) or name in _WHOLE_PARTS:
            _widen(module)
        elif writer := _WRITERS.get(type(module)):
            _widen(getattr(module, writer))
        if isinstance(module, qwen.Qwen3_5MLP):  # the product of gate and up can pass 65,504 where neither does
            module.gate_proj.forward = _with_float32_output(module.gate_proj.forward)


def _widen(module: nn.Module) -> None:
    """Compute a module in float32, whatever it is given."""
    forward: Callable[..., Any] = module.float().forward

    def run(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(next(module.parameters()).device.type, enabled=False):
            return forward(*map(_to_float32, args), **{name: _to_float32(value) for name, value in kwargs.items()})

    module.forward = run


def _to_float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.float16 else value


def _with_float32_output(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args, **kwargs: forward(*args, **kwargs).float()
