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

Autograd would keep two dozen tensors a layer for this. Here the inputs and T are kept, the rest is computed anew.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_CHUNK = 64
_EPS = 1e-6  # of the norms, as in flash-linear-attention


def chunk_gated_delta_rule(
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
    """The rule over whole sequences, in float32 whatever autocast says; called as `transformers` calls its own.

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
    batch, heads, width = len(value), *value.shape[2:]
    if initial_state is None:
        initial_state = value.new_zeros(batch, heads, key.shape[-1], width, dtype=_working_dtype(value))
    out, state = _GatedDeltaRule.apply(query, key, value, g, beta, initial_state, use_qk_l2norm_in_kernel)
    return out, state if output_final_state else None


def recurrent_gated_delta_rule(
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
    """The same for one token, T = 1, as generation asks for it; each state is walked through four times."""
    if query.shape[1] != 1 or initial_state is None:
        return chunk_gated_delta_rule(
            query, key, value, g, beta, initial_state, output_final_state, use_qk_l2norm_in_kernel
        )
    dtype = _working_dtype(value)
    query, key = _for_each_head(query, key, value)
    with torch.autocast(query.device.type, enabled=False):
        asked, read, wanted = (x.transpose(1, 2).flatten(0, 1).to(dtype) for x in (query, key, value))  # (Z, 1, d)
        if use_qk_l2norm_in_kernel:
            asked, read = _unit(asked), _unit(read)
        fade, beta = (x.reshape(-1, 1, 1).to(dtype) for x in (g, beta))
        state = initial_state.flatten(0, 1).to(dtype) * fade.exp()
        written = beta * torch.baddbmm(wanted, read, state, alpha=-1)
        state = torch.baddbmm(state, read.mT, written)
        out = (asked * asked.shape[-1] ** -0.5) @ state
    out = out.view(value.shape[0], value.shape[2], 1, -1).transpose(1, 2).to(query.dtype)
    return out, state.view(initial_state.shape) if output_final_state else None


class _GatedDeltaRule(torch.autograd.Function):
    """(q, k, v, g, β, S) → (o, S), as many key heads as heads."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, g: Tensor, beta: Tensor, state: Tensor, unit: bool
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(query.device.type, enabled=False):
            chunks = _Chunks(*_chunked(query, key, value, g, beta, unit=unit))
            inverse = chunks.invert()
            states, writes = chunks.scan(inverse, state.flatten(0, 1).to(inverse.dtype))
            out = (chunks.query * chunks.since) @ states[:-1] + chunks.scores @ writes
        ctx.unit = unit
        ctx.save_for_backward(query, key, value, g, beta, state, inverse)
        return _joined(out, value.shape).to(query.dtype), states[-1].reshape(state.shape).clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor, grad_final: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, state, inverse = ctx.saved_tensors
        inputs = [tensor.detach().requires_grad_() for tensor in inputs]
        with torch.autocast(grad_out.device.type, enabled=False):
            with torch.enable_grad():  # layout, dtype, lengths and sums: autograd's
                chunked = _chunked(*inputs, unit=ctx.unit)
            chunks = _Chunks(*(tensor.detach() for tensor in chunked))
            states, writes = chunks.scan(inverse, state.flatten(0, 1).to(inverse.dtype))
            grads, grad_state = chunks.gradients(
                inverse, states, writes, _split(grad_out, inverse.dtype), grad_final.flatten(0, 1).to(inverse.dtype)
            )
            return *torch.autograd.grad(chunked, inputs, grads), grad_state.view(state.shape), None


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
    return tensor.permute(1, 0, 3, 2, 4).to(dtype, memory_format=torch.contiguous_format).flatten(1, 2)


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

    def scan(self, inverse: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The states before each chunk and behind the last one (N + 1, Z, d_k, d_v), and w (N, Z, C, d_v)."""
        wanted = self.beta * self.value
        states, writes = [state], []
        for n in range(len(self.key)):
            writes.append(inverse[n] @ torch.baddbmm(wanted[n], self.read[n], states[n], alpha=-1))
            states.append(torch.baddbmm(states[n] * self.fade[n], self.written[n].mT, writes[n]))
        return torch.stack(states), torch.stack(writes)

    def gradients(
        self, inverse: Tensor, states: Tensor, writes: Tensor, grad_out: Tensor, grad_state: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Gradients of q / √d_k, k, v, G, β and the first state from those of o (N, Z, C, d_v) and the last state."""
        grad_asked = self.since * grad_out
        by_scores, by_asked = self.scores.mT @ grad_out, self.query.mT @ grad_asked
        residuals, behind = [], [grad_state]
        for n in reversed(range(len(self.key))):  # of r and of S, from the last chunk to the first
            residuals.append(inverse[n].mT @ torch.baddbmm(by_scores[n], self.written[n], behind[-1]))
            faded = torch.addcmul(by_asked[n], behind[-1], self.fade[n])
            behind.append(torch.baddbmm(faded, self.read[n].mT, residuals[-1], alpha=-1))
        grad_state = behind.pop()
        grad_r, grad_states = torch.stack(residuals[::-1]), torch.stack(behind[::-1])

        grad_scores = (grad_out @ writes.mT).mul_(self.decay)  # of q kᵀ
        grad_system = (grad_r @ writes.mT).mul_(self.decay).tril_(-1).neg_()  # of k kᵀ, but for β
        before = states[:-1].mT
        # A key reads as a query does, e^G k times β, and is read, e^-G k: its gradient comes in these two parts.
        grad_query = (grad_scores @ self.key).add_(grad_asked @ before)
        reading = (grad_system @ self.key).sub_((self.since * grad_r) @ before)
        being_read = (self.until * writes) @ grad_states.mT
        being_read += grad_scores.mT @ self.query
        being_read += (self.beta * grad_system).mT @ self.key

        def along(one: Tensor, other: Tensor) -> Tensor:
            return (one * other).sum(-1, keepdim=True)

        key_share = along(self.key, reading)
        # G scales what reads and, inversely, what is read; the last sum also the state that leaves its chunk.
        grad_sums = along(self.query, grad_query) + self.beta * key_share - along(self.key, being_read)
        grad_sums[:, :, -1:] += (states[1:] * grad_states).sum((-2, -1))[..., None, None]
        grad_beta = along(grad_r, self.value) + key_share
        grad_key = torch.addcmul(being_read, self.beta, reading)
        return [grad_query, grad_key, self.beta * grad_r, grad_sums, grad_beta], grad_state
