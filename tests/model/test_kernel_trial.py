"""Kernels are tried, not only imported: what raises, gives NaN or differs is not used."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers.models.qwen3_5 import modeling_qwen3_5

from satlisa.model import delta_net
from satlisa.model.delta_net import FUNCTIONS, describe_kernels, patch_delta_net
from satlisa.model.kernel_trial import find_fault

CPU = torch.device("cpu")


def plain(name: str) -> Callable[..., Any]:
    bound = getattr(modeling_qwen3_5, name)
    function: Callable[..., Any] = getattr(bound, "satlisa_replaces", bound).__wrapped__
    return function


class Backward(torch.autograd.Function):
    """The identity, whose backward pass does what a test wants."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        ctx.change = change
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        return ctx.change(gradient), None


def refuse(_: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("Triton >= 3.4.0 and < 3.7.1 on Hopper GPUs produces incorrect results\nmore")


def with_backward(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
    def kernel(first: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return plain(name)(Backward.apply(first, change), *args, **kwargs)

    return kernel


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_kernel_that_computes_the_same_has_no_fault(name: str, dtype: torch.dtype) -> None:
    assert find_fault(name, FUNCTIONS[name][1] or plain(name), plain(name), CPU, dtype) == ""


@pytest.mark.parametrize("name", ["torch_chunk_gated_delta_rule", "causal_conv1d_fn"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (refuse, "RuntimeError: Triton >= 3.4.0 and < 3.7.1 on Hopper GPUs produces incorrect results"),
        (lambda gradient: gradient * torch.nan, "differ from the PyTorch version's by nan"),
        (lambda gradient: gradient * 1.2, "differ from the PyTorch version's by 0.2"),
    ],
)
def test_a_backward_pass_that_fails_is_a_fault(
    name: str, change: Callable[[torch.Tensor], torch.Tensor], words: str
) -> None:
    fault = find_fault(name, with_backward(name, change), plain(name), CPU, torch.float32)
    assert words in fault and "\n" not in fault


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_forward_pass_that_fails_is_a_fault(name: str) -> None:
    def kernel(*_: Any, **__: Any) -> None:
        raise OSError("no kernel image is available for execution on the device")

    def doubled(first: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        out = plain(name)(first, *args, **kwargs)
        return (out[0] * 2, out[1]) if isinstance(out, tuple) else out * 2

    assert "no kernel image" in find_fault(name, kernel, plain(name), CPU, torch.float32)
    assert "by 1, relative" in find_fault(name, doubled, plain(name), CPU, torch.float32)


def test_a_trial_takes_no_random_numbers() -> None:
    torch.manual_seed(3)
    name = "torch_chunk_gated_delta_rule"
    find_fault(name, plain(name), plain(name), CPU, torch.float32)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))


def test_a_faulty_package_is_replaced_and_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a GPU: the trial says no, the call takes our function, and the log says so once."""

    class OnCuda(torch.Tensor):
        is_cuda = True

    calls: list[str] = []
    name = "torch_chunk_gated_delta_rule"
    bound = lambda *_, **__: calls.append("kernel")  # noqa: E731
    bound.__wrapped__ = lambda *_, **__: calls.append("plain")  # type: ignore[attr-defined]
    monkeypatch.setattr(modeling_qwen3_5, name, bound)
    monkeypatch.setitem(FUNCTIONS, name, ("fla", lambda *_, **__: calls.append("ours")))
    monkeypatch.setattr(delta_net, "_importable", lambda _: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(delta_net, "find_fault", lambda *_: "RuntimeError: not on Hopper")
    delta_net._tried.cache_clear()
    try:
        patch_delta_net()
        for _ in range(2):
            getattr(modeling_qwen3_5, name)(torch.zeros(1, dtype=torch.bfloat16).as_subclass(OnCuda))
        described = describe_kernels(torch.device("cuda"), torch.bfloat16)
    finally:
        delta_net._tried.cache_clear()
    assert calls == ["ours", "ours"]
    assert described == (
        "gated delta-net layers: plain PyTorch "
        "(does not work here: flash-linear-attention, does not work here: causal-conv1d)"
    )
    lines = [record.getMessage() for record in caplog.records if "flash-linear-attention" in record.getMessage()]
    assert lines == [
        "flash-linear-attention does not work here, plain PyTorch takes its place (RuntimeError: not on Hopper)"
    ]
