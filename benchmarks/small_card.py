"""Does training fit on a T4? Batch 1, 512 tokens, one mask: peak memory of a micro-batch in the middle of training.

Accumulated gradients and AdamW's state are present. On CUDA this is the memory that torch has allocated, without the
context and torch's reserve. The setting's own precision is fp16; each row names its precision.
"""

from dataclasses import replace
from functools import partial

import torch

from benchmarks.measure import Row, Side, extra_memory
from benchmarks.works import Bench, batch_of, compare_losses, expect, make_sample, step_loss, training_sides
from satlisa.data.sample import Sample
from satlisa.model.satlisa import SatLisa
from satlisa.runtime.hardware import dtype_name

_TOKENS = 512
_LOSS_SCALE = 2.0**16  # initial scale of torch's GradScaler


def small_card(bench: Bench) -> list[Row]:
    """Total peak memory, without and with gradient checkpointing on both sides; are all gradients finite?"""
    bench = replace(bench, batch_size=1)
    setting = f"T4 setting ({bench.size}), 1 × {_TOKENS} tokens, {dtype_name(bench.dtype)}"
    benches = {"": bench, ", gradient checkpointing": replace(bench, checkpointed=True)}
    peaks = {  # in their own processes, before this one allocates device memory
        words: [extra_memory(partial(_prepare, each, which), each.device)[1] for which in ("ours", "peer")]
        for words, each in benches.items()
    }
    rows = [
        Row(f"{setting}{words}: total peak memory", peaks[words][0], peaks[words][1], "MB", _compare(each))
        for words, each in benches.items()
    ]
    print(f"{_count_finite(bench)} gradients are finite at a loss scale of {_LOSS_SCALE:,.0f}\n")
    return rows


def _prepare(bench: Bench, which: str) -> Side:
    model = bench.model()
    ours, peer, _ = training_sides(model, [_sample(bench, model)])
    step = ours if which == "ours" else peer
    step()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    optimizer.step()

    def later_step() -> None:
        assert optimizer.state  # kept alive by the closure
        step()

    return later_step


def _compare(bench: Bench) -> str:
    model = bench.model()
    ours, peer, _ = training_sides(model, [_sample(bench, model)])
    return compare_losses(bench, ours, peer)


def _sample(bench: Bench, model: SatLisa) -> Sample:
    """A question as long as fits, and an answer with a mask."""
    words, missing = 0, 1
    while missing > 0:
        sample = make_sample(bench, 0, with_mask=True, more=" and" * words)
        missing = _TOKENS - batch_of(model, [sample])[0].input_ids.shape[1]
        words += missing
    expect(missing == 0, f"no question gives a sample of {_TOKENS} tokens")
    return sample


def _count_finite(bench: Bench) -> str:
    """How many gradients of a step are finite at that scale; exits unless all are."""
    model = bench.model().train()
    batch, _ = batch_of(model, [_sample(bench, model)])
    (step_loss(model, batch) * _LOSS_SCALE).backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    finite = sum(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    expect(finite == len(gradients), f"only {finite} of {len(gradients)} gradients are finite")
    return f"all {finite}"
