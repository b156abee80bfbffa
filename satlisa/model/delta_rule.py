"""The gated delta rule of Qwen3.5's linear-attention layers in plain PyTorch, its gradient written out.

Per head, a state S (d_k, d_v) fades, is corrected by a key and its value, and is read by a query (Yang et al.,
arXiv:2412.06464):

    S ← e^g S,   S ← S + β k (v - Sᵀk)ᵀ,   o = Sᵀq / √d_k

Chunks of C tokens are worked off as wholes (Yang et al., arXiv:2406.06484). With S the state before a chunk, rows of q,
k, v, o for its tokens, G the sums of g from its first token on, and D[i, j] = e^(G[i] - G[j]) for i ≥ j, else 0:

    r = β (v - e^G k S)                              what the state before the chunk gets wrong
    w = T r,   T = (1 + tril(β k kᵀ D, -1))⁻¹          what each token writes, knowing what those before it wrote
    o = e^G q S + (q kᵀ D) w
    S ← e^G[C] S + (e^(G[C] - G) k)ᵀ w

Autograd would keep some twenty tensors as large as the inputs. Here these and T are kept, the rest is computed anew.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_CHUNK = 64
_EPS = 1e-6  # of the norms, as in flash-linear-attention


def gated_delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    **_: Any,
) -> tuple[Tensor, Tensor | None]:
    """The rule over whole sequences or, in generation, one more token; in float32 whatever autocast says.

    It is called as `transformers` calls its two functions for these, and stands for both.

    Args:
        query, key: (B, T, key heads, d_k).
        value: (B, T, heads, d_v), a multiple of the key heads.
        g: (B, T, heads), logarithm of the decay, 0 or less.
        beta: (B, T, heads), the share of an error that is corrected, 0 to 1.
        initial_state: (B, heads, d_k, d_v); zeros by default.
        output_final_state: return the state behind the last token, too.
        use_qk_l2norm_in_kernel: bring queries and keys to length 1 first.

    Returns:
        (B, T, heads, d_v) in the query's dtype, and the state (B, heads, d_k, d_v) in float32, or None.
    """
    query, key = _for_each_head(query, key, value)
    if query.shape[1] == 1 and initial_state is not None:
        out, state = _one_token(query, key, value, g, beta, initial_state, use_qk_l2norm_in_kernel)
    else:
        out, state = _GatedDeltaRule.apply(query, key, value, g, beta, initial_state, use_qk_l2norm_in_kernel)
    return out, state if output_final_state else None


def _one_token(
    query: Tensor, key: Tensor, value: Tensor, g: Tensor, beta: Tensor, state: Tensor, unit: bool
) -> tuple[Tensor, Tensor]:
    """The definition for T = 1 as matrix products, which walk through each state four times."""
    dtype = _working_dtype(value)
    with torch.autocast(query.device.type, enabled=False):
        asked, read, wanted = (x.transpose(1, 2).flatten(0, 1).to(dtype) for x in (query, key, value))  # (Z, 1, d)
        if unit:
            asked, read = _unit(asked), _unit(read)
        fade, beta = (x.reshape(-1, 1, 1).to(dtype) for x in (g, beta))
        faded = state.flatten(0, 1).to(dtype) * fade.exp()
        written = beta * torch.baddbmm(wanted, read, faded, alpha=-1)
        following = torch.baddbmm(faded, read.mT, written)
        out = (asked * asked.shape[-1] ** -0.5) @ following
    out = out.view(value.shape[0], value.shape[2], 1, -1).transpose(1, 2).to(query.dtype)
    return out, following.view(state.shape)


class _GatedDeltaRule(torch.autograd.Function):
    """(q, k, v, g, β, S or None) → (o, S), as many key heads as heads."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, g: Tensor, beta: Tensor, state: Tensor | None, unit: bool
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(query.device.type, enabled=False):
            chunks = _Chunks(*_chunked(query, key, value, g, beta, unit=unit))
            inverse, asked = chunks.invert(), chunks.query * chunks.since
            now, out = chunks.begin(state), torch.empty_like(chunks.value)
            for n in range(len(out)):
                write, following = chunks.step(n, inverse, now)
                torch.baddbmm(asked[n] @ now, chunks.scores[n], write, out=out[n])
                now = following
        ctx.unit = unit
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(query, key, value, g, beta, inverse, state)
        return _joined(out, value.shape).to(query.dtype), now.unflatten(0, (len(value), -1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor | None, grad_final: Tensor | None) -> tuple[Tensor | None, ...]:
        *inputs, inverse, state = ctx.saved_tensors
        inputs = [tensor.detach().requires_grad_() for tensor in inputs]
        with torch.autocast(inverse.device.type, enabled=False):
            with torch.enable_grad():  # layout, dtype, lengths and sums: autograd's
                chunked = _chunked(*inputs, unit=ctx.unit)
            chunks = _Chunks(*(tensor.detach() for tensor in chunked))
            grad_chunks = torch.zeros_like(chunks.value) if grad_out is None else _split(grad_out, inverse.dtype)
            grads, of_state = chunks.gradients(inverse, chunks.begin(state), grad_chunks, chunks.begin(grad_final))
            grad_state = None if state is None else of_state.view(state.shape).to(state.dtype)
            return *torch.autograd.grad(chunked, inputs, grads), grad_state, None


def _working_dtype(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _for_each_head(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys as often as there are value heads: one head of them serves some that follow one another."""
    groups = value.shape[2] // key.shape[2]
    if groups == 1:
        return query, key
    return query.repeat_interleave(groups, dim=2), key.repeat_interleave(groups, dim=2)


def _unit(vectors: Tensor) -> Tensor:
    unit: Tensor = vectors * torch.rsqrt(vectors.square().sum(-1, keepdim=True) + _EPS)
    return unit


def _split(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, T, heads, d) → (chunks N, Z = B·heads, C, d), zeros behind the last token."""
    tensor = F.pad(tensor, (0, 0, 0, 0, 0, -tensor.shape[1] % _CHUNK)).unflatten(1, (-1, _CHUNK))
    return tensor.permute(1, 0, 3, 2, 4).to(dtype).contiguous().flatten(1, 2)


def _joined(chunks: Tensor, shape: Sequence[int]) -> Tensor:
    """The way back to (B, T, heads, d)."""
    batch, length, heads, width = shape
    by_head: Tensor = chunks.unflatten(1, (batch, heads))
    return by_head.permute(1, 0, 3, 2, 4).reshape(batch, -1, heads, width)[:, :length]


def _chunked(query: Tensor, key: Tensor, value: Tensor, g: Tensor, beta: Tensor, *, unit: bool) -> list[Tensor]:
    """The inputs in chunks (N, Z, C, ·): q / √d_k, k, v, the sums of g, β."""
    dtype = _working_dtype(value)
    query, key, value, g, beta = (_split(x, dtype) for x in (query, key, value, g[..., None], beta[..., None]))
    if unit:
        query, key = _unit(query), _unit(key)
    return [query * query.shape[-1] ** -0.5, key, value, g.cumsum(2), beta]


class _Chunks:
    """All chunks of a sequence (N, Z, C, ·), by the names of the equations above."""

    def __init__(self, query: Tensor, key: Tensor, value: Tensor, sums: Tensor, beta: Tensor) -> None:
        self.query, self.key, self.value, self.beta = query, key, value, beta
        self.since = sums.exp()  # e^G, (N, Z, C, 1): the decay since the start of a chunk
        self.until = (sums[:, :, -1:] - sums).exp()  # e^(G[C] - G), (N, Z, C, 1): the decay until its end
        self.fade = self.since[:, :, -1:]  # e^G[C], (N, Z, 1, 1)
        later = torch.ones(_CHUNK, _CHUNK, dtype=torch.bool, device=key.device).triu(1)
        # D, (N, Z, C, C); masked first, since e^ of a later token's sum overflows
        self.decay = (sums - sums.mT).masked_fill_(later, -torch.inf).exp_()
        self.scores = (query @ key.mT).mul_(self.decay)  # q kᵀ D, (N, Z, C, C)
        self.read, self.written = key * (beta * self.since), key * self.until

    def invert(self) -> Tensor:
        """T (N, Z, C, C)."""
        system = (self.key @ self.key.mT).mul_(self.decay).mul_(self.beta)  # what solves takes only below the diagonal
        eye = torch.eye(_CHUNK, dtype=self.key.dtype, device=self.key.device).expand_as(system)
        inverse: Tensor = torch.linalg.solve_triangular(system, eye, upper=False, unitriangular=True)
        return inverse

    def begin(self, state: Tensor | None) -> Tensor:
        """A state (B, heads, d_k, d_v), or zeros for none, as (Z, d_k, d_v)."""
        if state is None:
            return self.key.new_zeros(self.key.shape[1], self.key.shape[-1], self.value.shape[-1])
        return state.flatten(0, 1).to(self.key.dtype)

    def step(self, n: int, inverse: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """w (Z, C, d_v) of chunk n and the state behind it, from the state before it."""
        write = inverse[n] @ torch.baddbmm(self.beta[n] * self.value[n], self.read[n], state, alpha=-1)
        return write, torch.baddbmm(state * self.fade[n], self.written[n].mT, write)

    def gradients(
        self, inverse: Tensor, state: Tensor, grad_out: Tensor, grad_state: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Gradients of q / √d_k, k, v, G, β and the first state from those of o (N, Z, C, d_v) and the last state."""
        number = len(self.key)
        states = state.new_empty(number + 1, *state.shape)  # before each chunk, and behind the last
        writes, grad_r = torch.empty_like(self.value), torch.empty_like(self.value)
        states[0] = state
        for n in range(number):
            writes[n], states[n + 1] = self.step(n, inverse, states[n])
        grad_asked = self.since * grad_out
        by_scores, by_asked = self.scores.mT @ grad_out, self.query.mT @ grad_asked
        grad_states = torch.empty_like(states)
        grad_states[number] = grad_state
        for n in reversed(range(number)):
            behind = grad_states[n + 1]
            torch.bmm(inverse[n].mT, torch.baddbmm(by_scores[n], self.written[n], behind), out=grad_r[n])
            faded = torch.addcmul(by_asked[n], behind, self.fade[n])
            torch.baddbmm(faded, self.read[n].mT, grad_r[n], alpha=-1, out=grad_states[n])

        grad_scores = (grad_out @ writes.mT).mul_(self.decay)  # of q kᵀ
        grad_system = (grad_r @ writes.mT).mul_(self.decay).tril_(-1).neg_()  # of k kᵀ, but for β
        before = states[:-1].mT
        # A key reads as a query does, e^G k times β, and is read, e^-G k: its gradient comes in these two parts.
        grad_query = (grad_scores @ self.key).add_(grad_asked @ before)
        reading = (grad_system @ self.key).sub_((self.since * grad_r) @ before)
        being_read = (self.until * writes) @ grad_states[1:].mT
        being_read += grad_scores.mT @ self.query
        being_read += (self.beta * grad_system).mT @ self.key

        def along(one: Tensor, other: Tensor) -> Tensor:
            return (one * other).sum(-1, keepdim=True)

        key_share = along(self.key, reading)
        # G scales what reads and, inversely, what is read; the last sum also the state that leaves its chunk.
        grad_sums = along(self.query, grad_query) + self.beta * key_share - along(self.key, being_read)
        grad_sums[:, :, -1:] += (states[1:] * grad_states[1:]).sum((-2, -1))[..., None, None]
        grad_beta = along(grad_r, self.value) + key_share
        grad_key = torch.addcmul(being_read, self.beta, reading)
        return [grad_query, grad_key, self.beta * grad_r, grad_sums, grad_beta], grad_states[0]
