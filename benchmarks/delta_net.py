"""One gated delta-net layer on this package's functions against the same layer on transformers'."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from transformers.models.qwen3_5 import modeling_qwen3_5

from benchmarks.measure import Row, Side, race
from benchmarks.peer import unpatched_delta_net
from benchmarks.works import Bench, expect

_TOKENS, _ROWS = 340, 16


def delta_net(bench: Bench) -> list[Row]:
    """Forward and backward of a batch, the memory kept between them, and the rule for one token of 16 rows."""
    ours, peer = (_training_side(bench, which) for which in ("ours", "peer"))
    gap = _gap(ours(), peer())
    expect(gap < (1e-3 if bench.dtype == torch.float32 else 5e-2), f"the layers' gradients differ by {gap}, relative")
    name = f"delta-net layer ({bench.size}), {bench.batch_size} × {_TOKENS} tokens, forward and backward"
    found = f"gradient {gap:.1e}, relative"
    kept = [_kept(side) for side in (ours, peer)]
    one, other = (_token_side(bench, which) for which in ("ours", "peer"))
    gap = _gap(one(), other())
    expect(gap < 1e-2, f"the rules for one token differ by {gap}, relative")
    rule = f"delta rule ({bench.size}), one token of {_ROWS} rows"
    return [
        Row(name, *race(ours, peer, bench.repeats, bench.device), "s", found),
        Row(f"{name}: memory kept for the backward pass", kept[0], kept[1], "MB", found),
        Row(rule, *race(one, other, bench.repeats, bench.device), "s", f"{gap:.1e}, relative"),
    ]


def _gap(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def _kept(side: Side) -> float:
    """MB that autograd saves for the backward pass, each storage once, without the layer's own weights."""
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        side()
    return sum(storages.values()) / 1e6


def _layer(bench: Bench) -> Any:
    """The first gated delta-net layer of the model, with LoRA."""
    return next(m for m in bench.model().modules() if isinstance(m, modeling_qwen3_5.Qwen3_5GatedDeltaNet))


def _training_side(bench: Bench, which: str) -> Side:
    torch.manual_seed(0)
    layer = _layer(bench)
    hidden = torch.randn(bench.batch_size, _TOKENS, layer.hidden_size, device=bench.device, dtype=bench.dtype)
    hidden.requires_grad_()

    def step() -> Tensor:
        with torch.autocast(bench.device.type, bench.dtype, enabled=bench.dtype != torch.float32):
            out = layer(hidden)
        (gradient,) = torch.autograd.grad(out.float().square().sum(), hidden)
        return gradient.float()

    return step if which == "ours" else _as_in_transformers(step, bench.device)


def _token_side(bench: Bench, which: str) -> Side:
    torch.manual_seed(0)
    layer = _layer(bench)
    heads, width = layer.num_v_heads, layer.head_k_dim
    query, key, value = torch.randn(3, _ROWS, 1, heads, width, device=bench.device, dtype=bench.dtype)
    decay, beta = torch.rand(2, _ROWS, 1, heads, device=bench.device)
    state = torch.randn(_ROWS, heads, width, width, device=bench.device)

    @torch.no_grad()
    def step() -> Tensor:
        given = dict(g=-decay, beta=beta, initial_state=state, output_final_state=True, use_qk_l2norm_in_kernel=True)
        out, _ = modeling_qwen3_5.torch_recurrent_gated_delta_rule(query, key, value, **given)
        result: Tensor = out.float()
        return result

    return step if which == "ours" else _as_in_transformers(step, bench.device)


def _as_in_transformers(step: Side, device: torch.device) -> Side:
    def run() -> Tensor:
        with unpatched_delta_net(device):
            result: Tensor = step()
            return result

    return run
