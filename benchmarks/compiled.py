"""Does `torch.compile` pay off? The model with its layers compiled against the same model uncompiled (the "peer")."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import Row, race, synchronize
from benchmarks.models import IMAGE_SIDE
from benchmarks.works import Bench, batch_of, expect, follow_script, mixed_samples, noise, take_step
from satlisa.inference.generation import answer
from satlisa.model.satlisa import SatLisa

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 2e-2, torch.float16: 2e-2}


def compiled(bench: Bench) -> list[Row]:
    """SAM's encoder, a training step and answers, with SAM's layers and the language model's layers compiled."""
    return [_encoder(bench), _train_step(bench), _answers(bench)]


def compile_layers(model: SatLisa) -> None:
    """Compile each layer of both transformers in place; layers of one kind share compiled code."""
    torch._dynamo.config.recompile_limit = 64
    for layer in (*model.qwen.model.language_model.layers, *model.segmenter.sam.vision_encoder.layers):
        layer.compile()


def _encoder(bench: Bench) -> Row:
    plain, fast = bench.model(), bench.model()
    compile_layers(fast)
    side = plain.segmenter.inputs.image_size
    pixels = torch.randn(1, 3, side, side, device=bench.device)
    both = [partial(model.segmenter.encode, pixels) for model in (fast, plain)]
    return _row(bench, f"SAM encoder ({bench.size}), 1 × {side}²", both, _gap_of_tensors)


def _train_step(bench: Bench) -> Row:
    plain, fast = bench.model().train(), bench.model().train()
    compile_layers(fast)
    batch, _ = batch_of(plain, mixed_samples(bench))
    both = [partial(take_step, model, batch) for model in (fast, plain)]
    return _row(bench, f"training step ({bench.size}), half with a mask", both, lambda a, b: abs(a - b) / abs(b))


def _answers(bench: Bench) -> Row:
    plain, fast = bench.model(), bench.model()
    compile_layers(fast)
    images = [noise(IMAGE_SIDE[bench.size], seed) for seed in range(8)]
    for model in (plain, fast):
        follow_script(model)
    prompts = [f"Segment all buildings ({number})" for number in range(8)]
    both = [partial(answer, model, images, prompts, max_new_tokens=32) for model in (fast, plain)]

    def other_tokens(ours: Any, theirs: Any) -> float:
        return float(sum(a.token_ids != b.token_ids for a, b in zip(ours, theirs, strict=True)))

    return _row(bench, f"8 answers with a mask ({bench.size})", both, other_tokens)


def _gap_of_tensors(ours: Tensor, theirs: Tensor) -> float:
    return (ours - theirs).abs().max().item()


def _row(bench: Bench, name: str, both: Sequence[Callable[[], Any]], gap: Callable[[Any, Any], float]) -> Row:
    ours, peer = both
    started = time.perf_counter()
    first = ours()
    synchronize(bench.device)
    waited = time.perf_counter() - started
    difference = gap(first, peer())
    expect(difference < _TOLERANCE[bench.dtype], f"compiled and plain differ by {difference}")
    seconds = race(ours, peer, bench.repeats, bench.device)
    return Row(f"compiled, plain: {name}", *seconds, "s", f"{difference:.1e}; the first call took {waited:.0f} s")
