"""The gated delta rule of Qwen3.5's linear-attention layers in plain PyTorch, with a hand-written backward pass.

Per head, each token decays the state S (d_k, d_v), updates it with its key and value, and reads it with its query
(Yang et al., arXiv:2412.06464):

    S ← e^g S,   S ← S + β k (v - Sᵀk)ᵀ,   o = Sᵀq / √d_k

Tokens are processed in chunks of C (Yang et al., arXiv:2406.06484). With S the state before a chunk, the rows of q, k,
v, o its tokens, G the cumulative sum of g within the chunk, and D[i, j] = e^(G[i] - G[j]) for i ≥ j, else 0:

    r = β (v - e^G k S)                              error of the state before the chunk
    w = T r,   T = (1 + tril(β k kᵀ D, -1))⁻¹          each token's update, given the updates of the tokens before it
    o = e^G q S + (q kᵀ D) w
    S ← e^G[C] S + (e^(G[C] - G) k)ᵀ w

Autograd would save about twenty tensors of the inputs' size. Here only the inputs and T are saved; the backward pass
recomputes the rest.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_CHUNK = 64
_EPS = 1e-6  # in the L2 norm, as in flash-linear-attention


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
    """Apply the rule to full sequences or, in generation, to the next token. Float32, regardless of autocast.

    Replaces both the chunked and the recurrent function of `transformers`, with their signature.

    Args:
        query, key: (B, T, key heads, d_k).
        value: (B, T, heads, d_v); `heads` is a multiple of `key heads`.
        g: (B, T, heads), logarithm of the decay, ≤ 0.
        beta: (B, T, heads), fraction of the error to correct, 0 to 1.
        initial_state: (B, heads, d_k, d_v); zeros by default.
        output_final_state: also return the state after the last token.
        use_qk_l2norm_in_kernel: L2-normalize queries and keys first.

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
    query: Tensor, key: Tensor, value: Tensor, g: Tensor, beta: Tensor, state: Tensor, normalize: bool
) -> tuple[Tensor, Tensor]:
    """The recurrence for T = 1 as matrix products; it passes over the states four times."""
    dtype = _working_dtype(value)
    with torch.autocast(query.device.type, enabled=False):
        q, k, v = (x.transpose(1, 2).flatten(0, 1).to(dtype) for x in (query, key, value))  # (Z, 1, d)
        if normalize:
            q, k = _l2_normalize(q), _l2_normalize(k)
        log_decay, beta = (x.reshape(-1, 1, 1).to(dtype) for x in (g, beta))
        decayed = state.flatten(0, 1).to(dtype) * log_decay.exp()
        update = beta * torch.baddbmm(v, k, decayed, alpha=-1)
        new_state = torch.baddbmm(decayed, k.mT, update)
        out = (q * q.shape[-1] ** -0.5) @ new_state
    out = out.view(value.shape[0], value.shape[2], 1, -1).transpose(1, 2).to(query.dtype)
    return out, new_state.view(state.shape)


class _GatedDeltaRule(torch.autograd.Function):
    """(q, k, v, g, β, S or None) → (o, S), with equal numbers of key and value heads."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        g: Tensor,
        beta: Tensor,
        state: Tensor | None,
        normalize: bool,
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(query.device.type, enabled=False):
            chunks = _Chunks(*_make_chunks(query, key, value, g, beta, normalize=normalize))
            inverse, decayed_query = chunks.invert(), chunks.query * chunks.decay_in
            current, out = chunks.flat_state(state), torch.empty_like(chunks.value)
            for n in range(len(out)):
                write, next_state = chunks.step(n, inverse, current)
                torch.baddbmm(decayed_query[n] @ current, chunks.scores[n], write, out=out[n])
                current = next_state
        ctx.normalize = normalize
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(query, key, value, g, beta, inverse, state)
        return _merge(out, value.shape).to(query.dtype), current.unflatten(0, (len(value), -1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor | None, grad_final: Tensor | None) -> tuple[Tensor | None, ...]:
        *inputs, inverse, state = ctx.saved_tensors
        inputs = [tensor.detach().requires_grad_() for tensor in inputs]
        with torch.autocast(inverse.device.type, enabled=False):
            with torch.enable_grad():  # autograd differentiates layout, dtype, norms and cumulative sums
                made = _make_chunks(*inputs, normalize=ctx.normalize)
            chunks = _Chunks(*(tensor.detach() for tensor in made))
            grad_chunks = torch.zeros_like(chunks.value) if grad_out is None else _split(grad_out, inverse.dtype)
            grads, grad_first = chunks.gradients(
                inverse, chunks.flat_state(state), grad_chunks, chunks.flat_state(grad_final)
            )
            grad_state = None if state is None else grad_first.view(state.shape).to(state.dtype)
            return *torch.autograd.grad(made, inputs, grads), grad_state, None


def _working_dtype(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _for_each_head(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Repeat query and key heads to the number of value heads; consecutive value heads share one key head."""
    groups = value.shape[2] // key.shape[2]
    if groups == 1:
        return query, key
    return query.repeat_interleave(groups, dim=2), key.repeat_interleave(groups, dim=2)


def _l2_normalize(vectors: Tensor) -> Tensor:
    normalized: Tensor = vectors * torch.rsqrt(vectors.square().sum(-1, keepdim=True) + _EPS)
    return normalized


def _split(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, T, heads, d) → (N chunks, Z = B·heads, C, d), zero-padded after the last token."""
    tensor = F.pad(tensor, (0, 0, 0, 0, 0, -tensor.shape[1] % _CHUNK)).unflatten(1, (-1, _CHUNK))
    return tensor.permute(1, 0, 3, 2, 4).to(dtype).contiguous().flatten(1, 2)


def _merge(chunks: Tensor, shape: Sequence[int]) -> Tensor:
    """Inverse of `_split`: (N, Z, C, d) → (B, T, heads, d)."""
    batch, length, heads, width = shape
    by_head: Tensor = chunks.unflatten(1, (batch, heads))
    return by_head.permute(1, 0, 3, 2, 4).reshape(batch, -1, heads, width)[:, :length]


def _make_chunks(
    query: Tensor, key: Tensor, value: Tensor, g: Tensor, beta: Tensor, *, normalize: bool
) -> list[Tensor]:
    """The inputs in chunks (N, Z, C, ·): q / √d_k, k, v, cumulative sums of g, β."""
    dtype = _working_dtype(value)
    query, key, value, g, beta = (_split(x, dtype) for x in (query, key, value, g[..., None], beta[..., None]))
    if normalize:
        query, key = _l2_normalize(query), _l2_normalize(key)
    return [query * query.shape[-1] ** -0.5, key, value, g.cumsum(2), beta]


class _Chunks:
    """All chunks of a sequence, (N, Z, C, ·); comments name the terms of the equations above."""

    def __init__(self, query: Tensor, key: Tensor, value: Tensor, sums: Tensor, beta: Tensor) -> None:
        self.query, self.key, self.value, self.beta = query, key, value, beta
        self.decay_in = sums.exp()  # e^G, (N, Z, C, 1): decay since the start of the chunk
        self.decay_out = (sums[:, :, -1:] - sums).exp()  # e^(G[C] - G), (N, Z, C, 1): decay until its end
        self.chunk_decay = self.decay_in[:, :, -1:]  # e^G[C], (N, Z, 1, 1)
        later = torch.ones(_CHUNK, _CHUNK, dtype=torch.bool, device=key.device).triu(1)
        # D, (N, Z, C, C); masked before exp, which would overflow above the diagonal
        self.decay = (sums - sums.mT).masked_fill_(later, -torch.inf).exp_()
        self.scores = (query @ key.mT).mul_(self.decay)  # q kᵀ D, (N, Z, C, C)
        self.read_keys, self.write_keys = key * (beta * self.decay_in), key * self.decay_out

    def invert(self) -> Tensor:
        """T (N, Z, C, C)."""
        system = (self.key @ self.key.mT).mul_(self.decay).mul_(self.beta)  # the solver reads below the diagonal only
        eye = torch.eye(_CHUNK, dtype=self.key.dtype, device=self.key.device).expand_as(system)
        inverse: Tensor = torch.linalg.solve_triangular(system, eye, upper=False, unitriangular=True)
        return inverse

    def flat_state(self, state: Tensor | None) -> Tensor:
        """State (B, heads, d_k, d_v) → (Z, d_k, d_v); zeros for None."""
        if state is None:
            return self.key.new_zeros(self.key.shape[1], self.key.shape[-1], self.value.shape[-1])
        return state.flatten(0, 1).to(self.key.dtype)

    def step(self, n: int, inverse: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """w (Z, C, d_v) of chunk n and the state after it, from the state before it."""
        write = inverse[n] @ torch.baddbmm(self.beta[n] * self.value[n], self.read_keys[n], state, alpha=-1)
        return write, torch.baddbmm(state * self.chunk_decay[n], self.write_keys[n].mT, write)

    def gradients(
        self, inverse: Tensor, state: Tensor, grad_out: Tensor, grad_state: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Gradients of q / √d_k, k, v, G, β and the initial state, given those of o (N, Z, C, d_v) and the final state.

        Two passes: forward over the chunks to recompute states and w, backward for the gradients of the states.
        """
        number = len(self.key)
        states = state.new_empty(number + 1, *state.shape)  # before each chunk, and after the last
        writes, grad_r = torch.empty_like(self.value), torch.empty_like(self.value)
        states[0] = state
        for n in range(number):
            writes[n], states[n + 1] = self.step(n, inverse, states[n])
        grad_query_decayed = self.decay_in * grad_out
        grad_writes_local, grad_states_local = self.scores.mT @ grad_out, self.query.mT @ grad_query_decayed
        grad_states = torch.empty_like(states)
        grad_states[number] = grad_state
        for n in reversed(range(number)):
            grad_next = grad_states[n + 1]
            torch.bmm(inverse[n].mT, torch.baddbmm(grad_writes_local[n], self.write_keys[n], grad_next), out=grad_r[n])
            grad_through = torch.addcmul(grad_states_local[n], grad_next, self.chunk_decay[n])
            torch.baddbmm(grad_through, self.read_keys[n].mT, grad_r[n], alpha=-1, out=grad_states[n])

        grad_scores = (grad_out @ writes.mT).mul_(self.decay)  # of q kᵀ
        grad_system = (grad_r @ writes.mT).mul_(self.decay).tril_(-1).neg_()  # of k kᵀ, but for β
        before = states[:-1].mT
        # A key enters twice: it reads the state like a query (β e^G k), and later tokens read it (e^-G k).
        grad_query = (grad_scores @ self.key).add_(grad_query_decayed @ before)
        grad_reader = (grad_system @ self.key).sub_((self.decay_in * grad_r) @ before)
        grad_read = (self.decay_out * writes) @ grad_states[1:].mT
        grad_read += grad_scores.mT @ self.query
        grad_read += (self.beta * grad_system).mT @ self.key

        def row_dot(one: Tensor, other: Tensor) -> Tensor:
            return (one * other).sum(-1, keepdim=True)

        key_dot = row_dot(self.key, grad_reader)
        # G scales reads by e^G and what is read by e^-G; the last G also scales the state that leaves the chunk.
        grad_sums = row_dot(self.query, grad_query) + self.beta * key_dot - row_dot(self.key, grad_read)
        grad_sums[:, :, -1:] += (states[1:] * grad_states[1:]).sum((-2, -1))[..., None, None]
        grad_beta = row_dot(grad_r, self.value) + key_dot
        grad_key = torch.addcmul(grad_read, self.beta, grad_reader)
        return [grad_query, grad_key, self.beta * grad_r, grad_sums, grad_beta], grad_states[0]
