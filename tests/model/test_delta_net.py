"""Which functions Qwen3.5's gated delta-net layers run on, and that these are equal to transformers' own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers.models.qwen3_5 import modeling_qwen3_5

from benchmarks.peer import unpatched_delta_net
from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from satlisa.model import delta_net
from satlisa.model.delta_net import FUNCTIONS, causal_conv1d, describe_kernels, patch_delta_net
from tests.helpers.model_fixtures import batch_of, make_model, make_samples


@pytest.fixture
def unbound(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Binds each of the four functions as transformers does at import: to a kernel, its own version beside it."""
    own = {name: _original(name).__wrapped__ for name in FUNCTIONS}

    def bind(kernel: Callable[..., Any] | None, plain: Callable[..., Any] | None = None) -> None:
        for name, its_own in own.items():

            def bound(*args: Any, _plain: Callable[..., Any] = plain or its_own, **kwargs: Any) -> Any:
                return (kernel or _plain)(*args, **kwargs)

            bound.__wrapped__ = plain or its_own  # type: ignore[attr-defined]
            monkeypatch.setattr(modeling_qwen3_5, name, bound)

    return bind


def _original(name: str) -> Any:
    bound = getattr(modeling_qwen3_5, name)
    return getattr(bound, "satlisa_replaces", bound)


def _cuda_only(*_: object, **__: object) -> None:
    raise RuntimeError("0 active drivers")


def test_cpu_takes_no_cuda_kernel(unbound: Callable[..., None], tiny_config: ModelConfig) -> None:
    """With flash-linear-attention importable, transformers binds CUDA kernels that crash on CPU."""
    unbound(_cuda_only)
    model = make_model(tiny_config)
    assert torch.isfinite(model(batch_of(model, make_samples(2))).losses.text)


def test_a_training_step_is_that_of_transformers(unbound: Callable[..., None], tiny_config: ModelConfig) -> None:
    """Losses and every gradient, with the functions of this package and with those of transformers."""
    model = make_model(tiny_config)
    batch = batch_of(model, make_samples(3))

    def step() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        model.zero_grad()
        losses = model(batch).losses
        loss = losses.total(model.config, losses.num_tokens, losses.num_masks)
        loss.backward()
        return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    unbound(None)
    expected, expected_gradients = step()
    patch_delta_net()
    loss, gradients = step()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    assert gradients.keys() == expected_gradients.keys()
    assert any("in_proj_qkv.lora_A" in name and gradient.abs().max() > 0 for name, gradient in gradients.items())
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-4, atol=1e-6, msg=name)


def test_choosing_twice_chooses_once(unbound: Callable[..., None]) -> None:
    unbound(_cuda_only)
    patch_delta_net()
    chosen = [getattr(modeling_qwen3_5, name) for name in FUNCTIONS]
    patch_delta_net()
    assert [getattr(modeling_qwen3_5, name) for name in FUNCTIONS] == chosen


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("where", "importable", "dtype", "kernel"),
    [
        ("cuda", True, torch.bfloat16, True),
        ("cuda", True, torch.float32, False),  # as in fp16 runs; causal-conv1d takes it
        ("cuda", False, torch.bfloat16, False),
        ("cpu", True, torch.bfloat16, False),
    ],
)
def test_a_tensor_takes_the_kernel_that_is_made_for_it(
    unbound: Callable[..., None],
    name: str,
    where: str,
    importable: bool,
    dtype: torch.dtype,
    kernel: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Somewhere(torch.Tensor):
        is_cuda = where == "cuda"

    package, ours = FUNCTIONS[name]
    monkeypatch.setattr(delta_net, "_importable", lambda _: importable)
    monkeypatch.setitem(FUNCTIONS, name, (package, ours and (lambda *_: "ours")))
    unbound(lambda *_: "kernel", plain=lambda *_: "transformers'")
    patch_delta_net()
    chosen = getattr(modeling_qwen3_5, name)(torch.zeros(1, dtype=dtype).as_subclass(Somewhere))
    kernel = kernel or (package == "causal_conv1d" and where == "cuda" and importable)
    assert chosen == ("kernel" if kernel else "ours" if ours else "transformers'")


@pytest.mark.parametrize("name", ["cu_seqlens", "seq_idx"])
def test_packed_sequences_are_not_mixed(unbound: Callable[..., None], name: str) -> None:
    """transformers refuses them without its kernels, too."""
    unbound(None)
    patch_delta_net()
    with pytest.raises(ValueError, match="packed sequences"):
        modeling_qwen3_5.causal_conv1d_fn(torch.randn(1, 2, 5), torch.randn(2, 4), **{name: torch.tensor([0, 5])})


def test_a_release_without_these_functions_is_refused(
    unbound: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    unbound(None)
    monkeypatch.delattr(modeling_qwen3_5, "torch_chunk_gated_delta_rule")
    with pytest.raises(
        SatlisaError, match=r"expected a function torch_chunk_gated_delta_rule .*install transformers>=5\.17"
    ):
        patch_delta_net()


def test_the_benchmarks_peer_runs_on_what_transformers_has(unbound: Callable[..., None]) -> None:
    own = {name: _original(name).__wrapped__ for name in FUNCTIONS}
    unbound(_cuda_only)
    patch_delta_net()
    chosen = {name: getattr(modeling_qwen3_5, name) for name in FUNCTIONS}
    with pytest.raises(ZeroDivisionError), unpatched_delta_net(torch.device("cpu")):
        assert {name: getattr(modeling_qwen3_5, name) for name in FUNCTIONS} == own
        raise ZeroDivisionError
    assert {name: getattr(modeling_qwen3_5, name) for name in FUNCTIONS} == chosen


@pytest.mark.parametrize("activation", ["silu", None])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("length", [1, 3, 20])
def test_the_convolution_is_the_sum_over_its_taps(length: int, biased: bool, activation: str | None) -> None:
    weight, bias = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, dtype=torch.float64) if biased else None
    tokens = torch.randn(2, length, 6, dtype=torch.float64, requires_grad=True)
    out = causal_conv1d(tokens.transpose(1, 2), weight, bias, activation)
    expected = torch.zeros(2, 6, length, dtype=torch.float64) + (0 if bias is None else bias[:, None])
    for t in range(length):
        for tap in range(4):
            if t + tap >= 3:
                expected[:, :, t] += weight[:, tap] * tokens[:, t + tap - 3]
    expected = expected * expected.sigmoid() if activation else expected
    torch.testing.assert_close(out, expected)
    weights = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad((x * weights).sum(), tokens)[0] for x in (out, expected))
    torch.testing.assert_close(ours, theirs)
    assert length == 1 or out.stride(1) == 1  # channels still lie side by side


@pytest.mark.parametrize(
    ("device", "dtype", "packages", "line"),
    [
        ("cpu", torch.float32, {"fla"}, "plain PyTorch (the fast kernels are for CUDA, found cpu)"),
        ("cuda", torch.bfloat16, {"fla", "causal_conv1d"}, "flash-linear-attention, causal-conv1d"),
        (
            "cuda",
            torch.bfloat16,
            {"fla"},
            "plain PyTorch, flash-linear-attention (not installed: causal-conv1d)",
        ),
        (
            "cuda",
            torch.float16,
            {"fla", "causal_conv1d"},
            "plain PyTorch, causal-conv1d (not for float32: flash-linear-attention)",
        ),
    ],
)
def test_one_line_says_which_kernels_run(
    device: str, dtype: torch.dtype, packages: set[str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delta_net, "_importable", packages.__contains__)
    assert describe_kernels(torch.device(device), dtype) == f"gated delta-net layers: {line}"
