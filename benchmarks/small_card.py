"""Does a step fit on a T4? Batch 1, 512 tokens, one mask: peak memory of the step, with gradient checkpointing too."""

from dataclasses import replace
from functools import partial

import torch

from benchmarks.measure import Row, Side, extra_memory
from benchmarks.works import Bench, batch_of, expect, make_sample, training_sides
from satlisa.model import SatLisa
from satlisa.sample import Sample

_TOKENS = 512
_LOSS_SCALE = 2.0**16  # where torch's GradScaler begins


def small_card(bench: Bench) -> list[Row]:
    """Peak memory in all, and whether every gradient is finite at the scale that fp16 training begins with."""
    bench = replace(bench, batch_size=1)
    setting = f"T4 setting ({bench.size}), 1 × {_TOKENS} tokens"
    finite = f"{_finite_gradients(bench)} at a loss scale of {_LOSS_SCALE:,.0f}"
    _, peer = extra_memory(partial(_prepare, bench, "peer"), bench.device)
    rows = []
    for words, checkpointed in (("", False), (", gradient checkpointing", True)):
        _, ours = extra_memory(partial(_prepare, replace(bench, checkpointed=checkpointed), "ours"), bench.device)
        rows.append(Row(f"{setting}{words}: peak memory in all", ours, peer, "MB", finite))
    return rows


def _prepare(bench: Bench, which: str) -> Side:
    model = bench.model()
    ours, peer, _ = training_sides(model, [_sample(bench, model)])
    return ours if which == "ours" else peer


def _sample(bench: Bench, model: SatLisa) -> Sample:
    """A question with as many words as there is room for, and an answer with a mask."""
    words = 0
    while (missing := _TOKENS - _length(bench, model, words)) > 0:
        words += missing
    expect(missing == 0, f"no question gives a sample of {_TOKENS} tokens")
    return make_sample(bench, 0, with_mask=True, more=" and" * words)


def _length(bench: Bench, model: SatLisa, words: int) -> int:
    batch, _ = batch_of(model, [make_sample(bench, 0, with_mask=True, more=" and" * words)])
    return batch.input_ids.shape[1]


def _finite_gradients(bench: Bench) -> str:
    model = bench.model().train()
    batch, _ = batch_of(model, [_sample(bench, model)])
    losses = model(batch).losses
    (losses.total(model.config, losses.num_tokens, losses.num_masks) * _LOSS_SCALE).backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    finite = sum(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    return f"{finite} of {len(gradients)} gradients finite"
