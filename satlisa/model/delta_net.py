"""What Qwen3.5's gated delta-net layers run on: which functions, in which precision.

`transformers` binds four functions once, at import: those of flash-linear-attention and causal-conv1d where they can be
imported, even on a machine without CUDA, where they fail with "0 active drivers"; else functions of its own. Here each
call decides. A tensor on CUDA takes an installed kernel that is made for its dtype, everything else the functions of
this package, equal to rounding: `delta_rule`, and a convolution that reads the tokens as they lie in memory.
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.models.qwen3_5 import modeling_qwen3_5

from satlisa.errors import SatlisaError
from satlisa.model.delta_rule import gated_delta_rule
from satlisa.runtime.hardware import dtype_name

_PACKAGES = {"fla": "flash-linear-attention", "causal_conv1d": "causal-conv1d"}
_HALVES = (torch.bfloat16, torch.float16)
# Some releases of flash-linear-attention refuse float32, others round its products to TF32.
_KERNEL_DTYPES = {"fla": _HALVES, "causal_conv1d": (*_HALVES, torch.float32)}


def causal_conv1d(
    hidden_states: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None, **_: Any
) -> Tensor:
    """Each channel convolved with its own filter over this token and those before it, then the activation.

    Args:
        hidden_states: (B, C, T); fastest where it is (B, T, C) in memory, as the layers have it in training.
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
    "torch_chunk_gated_delta_rule": ("fla", gated_delta_rule),
    "torch_recurrent_gated_delta_rule": ("fla", gated_delta_rule),
}


def patch_delta_net() -> None:
    """Put the choice in the place of the functions that `transformers` bound. Safe to repeat.

    Raises:
        SatlisaError: a release of transformers that does without one of them.
    """
    for name, (package, ours) in FUNCTIONS.items():
        bound = getattr(modeling_qwen3_5, name, None)
        if hasattr(bound, "satlisa_replaces"):
            continue
        if bound is None or not hasattr(bound, "__wrapped__"):
            raise SatlisaError(
                f"transformers {transformers.__version__}: expected a function {name} with its plain version in "
                "modeling_qwen3_5, found none; install a release that requirements.txt names"
            )
        setattr(modeling_qwen3_5, name, _by_device(bound, ours or bound.__wrapped__, package))


def _by_device(bound: Callable[..., Any], otherwise: Callable[..., Any], package: str) -> Callable[..., Any]:
    def run(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        if hidden_states.is_cuda and hidden_states.dtype in _KERNEL_DTYPES[package] and _importable(package):
            return bound(hidden_states, *args, **kwargs)
        if kwargs.get("cu_seqlens") is not None or kwargs.get("seq_idx") is not None:
            raise ValueError(f"packed sequences can be kept apart by {_PACKAGES[package]} on CUDA only")
        return otherwise(hidden_states, *args, **kwargs)

    run.satlisa_replaces = bound  # type: ignore[attr-defined]
    return run


@functools.cache
def _importable(package: str) -> bool:
    """As `transformers` asks: a package that is there and cannot be imported does not count."""
    try:
        importlib.import_module(package)
    except Exception:  # a compiled kernel fails in more ways than ImportError
        return False
    return True


def describe_kernels(device: torch.device, compute_dtype: torch.dtype) -> str:
    """Which kernels the gated delta-net layers run on in a run of that precision, in one line."""
    if device.type != "cuda":
        return f"gated delta-net layers: plain PyTorch (the fast kernels are for CUDA, found {device.type})"
    dtype = layer_dtype(compute_dtype)
    fitting = {name: package for package, name in _PACKAGES.items() if dtype in _KERNEL_DTYPES[package]}
    found = [name for name, package in fitting.items() if _importable(package)]
    reasons = [f"not for {dtype_name(dtype)}: {n}" for n in _PACKAGES.values() if n not in fitting]
    reasons += [f"not installed: {name}" for name in fitting if name not in found]
    if reasons:
        return f"gated delta-net layers: {', '.join(['plain PyTorch', *found])} ({', '.join(reasons)})"
    return f"gated delta-net layers: {', '.join(found)}"


def layer_dtype(compute_dtype: torch.dtype) -> torch.dtype:
    """What these layers compute in where the rest computes in `compute_dtype`: float32 in float16 runs."""
    return torch.float32 if compute_dtype == torch.float16 else compute_dtype


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
