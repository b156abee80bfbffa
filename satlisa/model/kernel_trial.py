"""Trials of the gated delta-net layers' CUDA kernels: a tiny forward and backward pass against the PyTorch version.

That a package can be imported says little: flash-linear-attention refuses Hopper in the backward pass with triton from
3.4 and before 3.7.1, and some releases return NaN gradients on newer cards.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from satlisa.errors import first_line

_MOST = 0.05  # largest relative difference; bfloat16 products give up to 0.01
_LENGTH, _HEADS, _WIDTH, _TAPS = 70, 2, 128, 4  # more than one chunk of 64 tokens; the width of Qwen3.5's heads


def find_fault(
    name: str, kernel: Callable[..., Any], plain: Callable[..., Any], device: torch.device, dtype: torch.dtype
) -> str:
    """What is wrong with a kernel on this device, in a line; empty if it computes what its plain version does.

    Args:
        name: the function of `transformers` that the kernel stands for, a key of `delta_net.FUNCTIONS`.
    """
    try:
        with torch.enable_grad(), torch.autocast(device.type, enabled=False):
            found, expected = (_TRIALS[name](function, device, dtype) for function in (kernel, plain))
    except Exception as error:  # compilers and drivers raise anything
        return f"{type(error).__name__}: {first_line(error)}"
    gaps = [float((one - other).norm() / other.norm()) for one, other in zip(found, expected, strict=True)]
    wrong = [gap for gap in gaps if not gap < _MOST]  # NaN is wrong, too
    return f"its results differ from the PyTorch version's by {wrong[0]:.2g}, relative" if wrong else ""


class _Inputs:
    """Random inputs, the same for both sides, drawn apart from torch's own generator."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype, self.generator = device, dtype, torch.Generator().manual_seed(0)

    def draw(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.randn(*shape, generator=self.generator).to(self.device, dtype or self.dtype)

    def rule(self, length: int) -> tuple[list[Tensor], Tensor]:
        """Queries, keys, values, log decays and β of the delta rule, and a state."""
        *qkv, decay, beta = (self.draw(1, length, _HEADS, _WIDTH) for _ in range(5))
        given = [*qkv, -decay[..., 0].float().abs(), beta[..., 0].sigmoid()]
        return given, self.draw(1, _HEADS, _WIDTH, _WIDTH, dtype=torch.float32)


def _with_gradients(outputs: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """Outputs and the gradients of a weighted sum of them, float32."""
    weights = [torch.linspace(-1, 1, out.numel(), device=out.device, dtype=out.dtype).view_as(out) for out in outputs]
    gradients = torch.autograd.grad(outputs, inputs, weights)
    return [tensor.detach().float() for tensor in (*outputs, *gradients)]


def _chunked_rule(function: Callable[..., Any], device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    given, _ = _Inputs(device, dtype).rule(_LENGTH)
    given = [tensor.requires_grad_() for tensor in given]
    query, key, value, decay, beta = given
    options = dict(initial_state=None, output_final_state=False, use_qk_l2norm_in_kernel=True)
    return _with_gradients([function(query, key, value, g=decay, beta=beta, **options)[0]], given)


@torch.no_grad()
def _one_token(function: Callable[..., Any], device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    (query, key, value, decay, beta), state = _Inputs(device, dtype).rule(1)
    options = dict(initial_state=state, output_final_state=True, use_qk_l2norm_in_kernel=True)
    return [tensor.float() for tensor in function(query, key, value, g=decay, beta=beta, **options)]


def _convolution(function: Callable[..., Any], device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    inputs = _Inputs(device, dtype)
    hidden = inputs.draw(1, _LENGTH, _WIDTH).requires_grad_()
    weight = inputs.draw(_WIDTH, _TAPS).requires_grad_()
    return _with_gradients([function(hidden.transpose(1, 2), weight, None, activation="silu")], [hidden, weight])


@torch.no_grad()
def _convolution_update(function: Callable[..., Any], device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    inputs = _Inputs(device, dtype)
    state = inputs.draw(1, _WIDTH, _TAPS)
    out = function(inputs.draw(1, _WIDTH, 1), state, inputs.draw(_WIDTH, _TAPS), None, "silu")
    return [out.float(), state.float()]  # the state is updated in place


_TRIALS: dict[str, Callable[..., list[Tensor]]] = {
    "torch_chunk_gated_delta_rule": _chunked_rule,
    "torch_recurrent_gated_delta_rule": _one_token,
    "causal_conv1d_fn": _convolution,
    "causal_conv1d_update": _convolution_update,
}
