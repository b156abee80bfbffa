"""What Qwen3.5's gated delta-net layers run on: which functions, in which precision.

`transformers` binds four functions once, at import: those of flash-linear-attention and causal-conv1d where they can be
imported, even on a machine without CUDA, where they fail with "0 active drivers"; else functions of its own. Here each
call decides. A tensor on CUDA takes an installed kernel, everything else the functions of this package, equal to
rounding: the rule is that of `delta_rule`, and the convolution reads the tokens as they lie in memory.
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.models.qwen3_5 import modeling_qwen3_5

from satlisa.delta_rule import chunk_gated_delta_rule, recurrent_gated_delta_rule

_PACKAGES = {"fla": "flash-linear-attention", "causal_conv1d": "causal-conv1d"}


def causal_conv1d(
    hidden_states: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None, **_: Any
) -> Tensor:
    """Each channel convolved with its own filter over this token and those before it, then the activation.

    Args:
        hidden_states: (B, C, T), as the layers have it: (B, T, C) in memory.
        weight, bias: (C, taps) and (C,).
        activation: its name in `transformers`.
    """
    image = hidden_states.to(weight.dtype).unsqueeze(2)  # (B, C, 1, T), which is "channels last"
    taps = weight.shape[-1]
    out = F.conv2d(image, weight[:, None, None], bias, padding=(0, taps - 1), groups=len(weight))
    out = out[:, :, 0, : hidden_states.shape[-1]]
    return (out if activation is None else ACT2FN[activation](out)).to(hidden_states.dtype)


# Function of transformers → the package with its kernel, and what stands in for it; None: transformers' plain function.
FUNCTIONS: dict[str, tuple[str, Callable[..., Any] | None]] = {
    "causal_conv1d_fn": ("causal_conv1d", causal_conv1d),
    "causal_conv1d_update": ("causal_conv1d", None),
    "torch_chunk_gated_delta_rule": ("fla", chunk_gated_delta_rule),
    "torch_recurrent_gated_delta_rule": ("fla", recurrent_gated_delta_rule),
}


def choose_functions() -> None:
    """Put the choice in the place of the functions that `transformers` bound. Safe to repeat."""
    for name, (package, ours) in FUNCTIONS.items():
        bound = getattr(modeling_qwen3_5, name, None)
        if bound is not None and hasattr(bound, "__wrapped__") and not hasattr(bound, "satlisa_instead_of"):
            setattr(modeling_qwen3_5, name, _by_device(bound, ours or bound.__wrapped__, package))


def _by_device(bound: Callable[..., Any], otherwise: Callable[..., Any], package: str) -> Callable[..., Any]:
    def run(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        chosen = bound if hidden_states.is_cuda and _importable(package) else otherwise
        return chosen(hidden_states, *args, **kwargs)

    run.satlisa_instead_of = bound  # type: ignore[attr-defined]
    return run


@functools.cache
def _importable(package: str) -> bool:
    """As `transformers` asks: a package that is there and cannot be imported does not count."""
    try:
        importlib.import_module(package)
    except Exception:  # a compiled kernel fails in more ways than ImportError
        return False
    return True


def kernels(device: torch.device) -> str:
    """Which kernels the gated delta-net layers run on, in one line."""
    if device.type != "cuda":
        return f"gated delta-net layers: plain PyTorch (the fast kernels are for CUDA, found {device.type})"
    found = [name for package, name in _PACKAGES.items() if _importable(package)]
    missing = [name for name in _PACKAGES.values() if name not in found]
    if missing:
        return f"gated delta-net layers: {', '.join(['plain PyTorch', *found])} (not installed: {', '.join(missing)})"
    return f"gated delta-net layers: {', '.join(found)}"


def keep_in_float32(vlm: nn.Module) -> None:
    """Run the gated delta-net layers in float32, autocast off, whatever runs around them.

    Their gradients are reported to become NaN in float16; a T4 has the memory for these layers in float32.
    """
    for module in vlm.modules():
        if isinstance(module, modeling_qwen3_5.Qwen3_5GatedDeltaNet):
            module.float()
            module.forward = _in_float32(module.forward)


def _in_float32(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        with torch.autocast(hidden_states.device.type, enabled=False):
            return forward(hidden_states.float(), *args, **kwargs).to(hidden_states.dtype)

    return run
