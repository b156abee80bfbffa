"""Kernel dispatch and precision of Qwen3.5's gated delta-net layers.

At import, `transformers` binds four functions: the CUDA kernels of flash-linear-attention and causal-conv1d if these
packages can be imported, else its own PyTorch versions. Without CUDA the kernels fail with "0 active drivers". This
module dispatches each call instead: a CUDA tensor takes the kernel where that supports its dtype and works on its
device (`kernel_trial`), any other tensor a PyTorch version. Ours agree with transformers' up to rounding: `delta_rule`,
and a convolution without a copy.
"""

import functools
import importlib
import logging
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor
from transformers.activations import ACT2FN

from satlisa.errors import SatlisaError
from satlisa.model.delta_rule import gated_delta_rule
from satlisa.model.kernel_trial import find_fault
from satlisa.model.precision import layer_dtype
from satlisa.model.qwen import NEEDED, modeling_qwen3_5
from satlisa.runtime.hardware import dtype_name

logger = logging.getLogger(__name__)

_PACKAGES = {"fla": "flash-linear-attention", "causal_conv1d": "causal-conv1d"}
_HALVES = (torch.bfloat16, torch.float16)
# Some releases of flash-linear-attention reject float32; others compute its matrix products in TF32.
_KERNEL_DTYPES = {"fla": _HALVES, "causal_conv1d": (*_HALVES, torch.float32)}


def causal_conv1d(
    hidden_states: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None, **_: Any
) -> Tensor:
    """Causal depthwise convolution over T, followed by the activation.

    Args:
        hidden_states: (B, C, T); fastest if laid out as (B, T, C) in memory, as it is in training.
        weight, bias: (C, taps) and (C,).
        activation: its name in `transformers`.
    """
    image = hidden_states.to(weight.dtype).unsqueeze(2)  # (B, C, 1, T), channels-last
    taps = weight.shape[-1]
    out = F.conv2d(image, weight[:, None, None], bias, padding=(0, taps - 1), groups=len(weight))
    out = out[:, :, 0, : hidden_states.shape[-1]]
    return (out if activation is None else ACT2FN[activation](out)).to(hidden_states.dtype)


# Function in transformers → (package of its CUDA kernel, our fallback, or None for transformers' PyTorch version)
FUNCTIONS: dict[str, tuple[str, Callable[..., Any] | None]] = {
    "causal_conv1d_fn": ("causal_conv1d", causal_conv1d),
    "causal_conv1d_update": ("causal_conv1d", None),
    "torch_chunk_gated_delta_rule": ("fla", gated_delta_rule),
    "torch_recurrent_gated_delta_rule": ("fla", gated_delta_rule),
}


def patch_delta_net() -> None:
    """Replace the functions bound in `transformers.models.qwen3_5` with dispatchers. Process-wide; idempotent.

    Raises:
        SatlisaError: this release of transformers lacks one of the functions.
    """
    for name, (package, ours) in FUNCTIONS.items():
        bound = getattr(modeling_qwen3_5, name, None)
        if hasattr(bound, "satlisa_replaces"):
            continue
        if bound is None or not hasattr(bound, "__wrapped__"):
            raise SatlisaError(
                f"transformers {transformers.__version__}: expected a function {name} with its plain version in "
                f"modeling_qwen3_5, found none; install {NEEDED}"
            )
        setattr(modeling_qwen3_5, name, _by_device(bound, ours or bound.__wrapped__, package))


def _by_device(bound: Callable[..., Any], otherwise: Callable[..., Any], package: str) -> Callable[..., Any]:
    def run(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        if hidden_states.is_cuda and _works(package, hidden_states.dtype, hidden_states.device):
            return bound(hidden_states, *args, **kwargs)
        if kwargs.get("cu_seqlens") is not None or kwargs.get("seq_idx") is not None:
            raise ValueError(f"packed sequences can be kept apart by {_PACKAGES[package]} on CUDA only")
        return otherwise(hidden_states, *args, **kwargs)

    run.satlisa_replaces = bound  # type: ignore[attr-defined]
    return run


@functools.cache
def _importable(package: str) -> bool:
    """Whether the package can be imported, the criterion of `transformers`; being installed is not enough."""
    try:
        importlib.import_module(package)
    except Exception:  # a compiled kernel fails in more ways than ImportError
        return False
    return True


def _works(package: str, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the kernels of a package are used for this dtype on this CUDA device."""
    return dtype in _KERNEL_DTYPES[package] and _importable(package) and not _tried(package, dtype, device.index or 0)


@functools.cache
def _tried(package: str, dtype: torch.dtype, index: int) -> str:
    """What a trial of the package's kernels found, in a line; empty if they work, or where there is no device."""
    if not torch.cuda.is_available():
        return ""
    for name, (its_package, ours) in FUNCTIONS.items():
        bound = getattr(modeling_qwen3_5, name)
        bound = getattr(bound, "satlisa_replaces", bound)
        if its_package != package:
            continue
        if fault := find_fault(name, bound, ours or bound.__wrapped__, torch.device("cuda", index), dtype):
            logger.warning("%s does not work here, plain PyTorch takes its place (%s)", _PACKAGES[package], fault)
            return fault
    return ""


def describe_kernels(device: torch.device, compute_dtype: torch.dtype) -> str:
    """One line for the log: the kernels that the gated delta-net layers use with this device and precision."""
    if device.type != "cuda":
        return f"gated delta-net layers: plain PyTorch (the fast kernels are for CUDA, found {device.type})"
    dtype = layer_dtype(compute_dtype)
    fitting = {name: package for package, name in _PACKAGES.items() if dtype in _KERNEL_DTYPES[package]}
    importable = {name: package for name, package in fitting.items() if _importable(package)}
    found = [name for name, package in importable.items() if not _tried(package, dtype, device.index or 0)]
    reasons = [f"not for {dtype_name(dtype)}: {n}" for n in _PACKAGES.values() if n not in fitting]
    reasons += [f"not installed: {name}" for name in fitting if name not in importable]
    reasons += [f"does not work here: {name}" for name in importable if name not in found]
    if reasons:
        return f"gated delta-net layers: {', '.join(['plain PyTorch', *found])} ({', '.join(reasons)})"
    return f"gated delta-net layers: {', '.join(found)}"
