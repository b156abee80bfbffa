"""The gated delta rule against its definition, one token after another in float64, derived by autograd."""

import pytest
import torch
from torch import Tensor

from satlisa.model import delta_rule
from satlisa.model.delta_rule import gated_delta_rule
from tests.helpers.model_fixtures import kept_for_backward

NAMES = ("query", "key", "value", "g", "beta", "state")


def definition(query: Tensor, key: Tensor, value: Tensor, g: Tensor, beta: Tensor, state: Tensor):  # type: ignore[no-untyped-def]
    """S ← e^g S; S ← S + β k (v - Sᵀk)ᵀ; o = Sᵀq / √d, with q and k of length 1. State (B, heads, d_k, d_v)."""
    query, key = (x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (query, key))
    groups = value.shape[2] // key.shape[2]
    outputs = []
    for t in range(query.shape[1]):
        rows = []
        states = []
        for head in range(value.shape[2]):
            q, k = query[:, t, head // groups], key[:, t, head // groups]  # (B, d_k)
            s = state[:, head] * g[:, t, head, None, None].exp()
            error = value[:, t, head] - (s * k[..., None]).sum(1)
            s = s + beta[:, t, head, None, None] * k[..., None] * error[:, None]
            rows.append((s * q[..., None]).sum(1) / q.shape[-1] ** 0.5)
            states.append(s)
        state = torch.stack(states, 1)
        outputs.append(torch.stack(rows, 1))
    return torch.stack(outputs, 1), state


def inputs(length: int, *, key_heads: int = 2, heads: int = 2, decay: float = 1.0, seed: int = 0) -> list[Tensor]:
    """Batch 2, d_k 5, d_v 3, float64, each asking for its gradient."""
    make = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(2, *shape, generator=make, dtype=torch.float64)

    tensors = [draw(length, key_heads, 5), draw(length, key_heads, 5), draw(length, heads, 3)]
    tensors += [-decay * draw(length, heads).abs(), draw(length, heads).sigmoid(), draw(heads, 5, 3)]
    return [tensor.requires_grad_() for tensor in tensors]


def gradients(rule, tensors: list[Tensor], **options: bool) -> tuple[list[Tensor], list[Tensor]]:  # type: ignore[no-untyped-def]
    """(outputs, gradients) of a loss that weighs each number of the outputs and of the last state differently."""
    results = rule(*tensors, **options)
    weights = torch.Generator().manual_seed(1)
    loss = sum((r * torch.randn(r.shape, generator=weights, dtype=torch.float64).to(r)).sum() for r in results)
    return list(results), list(torch.autograd.grad(loss, tensors))


OURS = {"output_final_state": True, "use_qk_l2norm_in_kernel": True}


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 130])
@pytest.mark.parametrize("heads", [2, 4])
def test_outputs_and_gradients_are_those_of_the_definition(length: int, heads: int) -> None:
    tensors = inputs(length, heads=heads)
    ours, our_gradients = gradients(gated_delta_rule, tensors, **OURS)
    expected, expected_gradients = gradients(definition, tensors)
    for name, one, other in zip(("out", "state"), ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")
    for name, one, other in zip(NAMES, our_gradients, expected_gradients, strict=True):
        assert other.abs().max() > 1e-3, f"a gradient of {name} that is zero shows nothing"
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


def test_without_a_state_before_and_behind() -> None:
    *tensors, state = inputs(70)
    out, nothing = gated_delta_rule(*tensors, use_qk_l2norm_in_kernel=True)
    torch.testing.assert_close(out, definition(*tensors, torch.zeros_like(state))[0])
    assert nothing is None
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(out.sum(), tensors))


def test_vectors_are_taken_as_they_are_unless_asked() -> None:
    query, key, value, g, beta, state = inputs(66)
    short = key / 4
    out, _ = gated_delta_rule(query, short, value, g, beta, state)
    rows, now = [], state
    for t in range(66):
        now = now * g[:, t, :, None, None].exp()
        error = value[:, t] - torch.einsum("bhkv,bhk->bhv", now, short[:, t])
        now = now + torch.einsum("bhk,bhv->bhkv", short[:, t], beta[:, t, :, None] * error)
        rows.append(torch.einsum("bhkv,bhk->bhv", now, query[:, t]) / 5**0.5)
    torch.testing.assert_close(out, torch.stack(rows, 1))


@pytest.mark.parametrize("length", [1, 3])
def test_one_token_at_a_time_is_the_same(length: int) -> None:
    """Also with its gradient, and with more than one token."""
    tensors = inputs(length, heads=4)
    ours, our_gradients = gradients(gated_delta_rule, tensors, **OURS)
    expected, expected_gradients = gradients(definition, tensors)
    for one, other in zip(ours + our_gradients, expected + expected_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_a_sequence_in_two_halves_is_the_same() -> None:
    *tensors, state = inputs(100)
    whole, end = gated_delta_rule(*tensors, state, **OURS)
    first, between = gated_delta_rule(*(x[:, :37] for x in tensors), state, **OURS)
    second, last = gated_delta_rule(*(x[:, 37:] for x in tensors), between, **OURS)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(last, end)


def test_zeros_in_front_change_nothing() -> None:
    """Left padding: queries, keys and values are zero there, decay and β are those of a zero vector, not zero."""
    *tensors, state = inputs(30)
    front = [torch.zeros_like(x[:, :9]) for x in tensors[:3]] + [x[:, :9] for x in tensors[3:]]
    padded = [torch.cat([f.detach(), x], 1) for f, x in zip(front, tensors, strict=True)]
    nothing = torch.zeros_like(state)
    whole = gated_delta_rule(*(x[:, :20] for x in tensors), nothing, **OURS)
    out, end = gated_delta_rule(*(x[:, :29] for x in padded), nothing, **OURS)
    torch.testing.assert_close(out[:, 9:], whole[0])
    torch.testing.assert_close(end, whole[1])
    own = torch.autograd.grad(whole[0].square().sum(), tensors)
    for one, other in zip(torch.autograd.grad(out[:, 9:].square().sum(), tensors), own, strict=True):
        torch.testing.assert_close(one, other)
    behind, _ = gated_delta_rule(*(x[:, 29:] for x in padded), end, **OURS)  # a cached continuation
    torch.testing.assert_close(behind, gated_delta_rule(*tensors, nothing, **OURS)[0][:, 20:])


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_chunks_lie_in_memory_as_products_want_them(batch: int, dtype: torch.dtype) -> None:
    """`Tensor.to(dtype, memory_format=…)` leaves a tensor of that dtype as it is."""
    tokens = torch.randn(batch, 130, 4, 8, dtype=dtype)
    chunks = delta_rule._split(tokens, torch.float32)
    assert chunks.shape == (3, batch * 4, 64, 8) and chunks.is_contiguous()
    assert torch.equal(delta_rule._merge(chunks, tokens.shape), tokens.float())


def test_a_decay_that_forgets_everything_leaves_finite_gradients() -> None:
    """e^(G[i] - G[j]) of a later j would overflow here, and inf · 0 is not a number."""
    tensors = inputs(80, decay=1e4)
    results, grads = gradients(gated_delta_rule, [x.detach().float().requires_grad_() for x in tensors], **OURS)
    assert all(torch.isfinite(x).all() for x in results + grads)


def test_keys_all_alike_in_float32() -> None:
    """The system is at its worst there: powers of it, which some invert it with, pass 1e18."""
    query, key, value, g, beta, state = inputs(128)
    hard = [query, key[:, :1].expand_as(key), value, g * 0, torch.ones_like(beta), state]
    exact, _ = definition(*hard)
    ours, _ = gated_delta_rule(*(x.float() for x in hard), **OURS)
    torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-4)


def test_bfloat16_in_and_out_float32_between_also_under_autocast() -> None:
    *tensors, state = (x.detach() for x in inputs(90))
    rounded = [x.bfloat16() if n < 3 else x.float() for n, x in enumerate(tensors)]
    exact, _ = definition(*(x.double() for x in rounded), torch.zeros_like(state))
    rounded = [x.requires_grad_() for x in rounded]
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out, _ = gated_delta_rule(*rounded, **OURS)
            results.append((out, *torch.autograd.grad(out.float().square().sum(), rounded)))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
    assert results[0][0].dtype == torch.bfloat16
    assert (results[0][0].double() - exact).abs().max() < 2**-8 * exact.abs().max()  # one rounding, at the end


def test_the_backward_pass_keeps_the_inputs_and_one_matrix_a_chunk() -> None:
    tensors = [x.detach().float().requires_grad_() for x in inputs(128, heads=2)]
    with kept_for_backward() as kept:
        gated_delta_rule(*tensors, **OURS)
    assert sum(x.numel() for x in kept) == sum(x.numel() for x in tensors) + 2 * 2 * 128 * 64
