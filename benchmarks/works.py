"""The measurements: each function checks that both sides compute the same, then returns rows of the table."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from benchmarks.measure import Row, Side, extra_memory, matrix_rate, operations, race
from benchmarks.models import IMAGE_SIDE, make_model, plain_sam
from benchmarks.peer import Peer, unpatched_delta_net
from satlisa.data.sample import Sample, Turn
from satlisa.data.synthetic.rows import demo_rows
from satlisa.evaluation.evaluate import evaluate
from satlisa.evaluation.windows import EvalSettings
from satlisa.inference.generation import Answer, answer
from satlisa.model.assemble import enable_gradient_checkpointing
from satlisa.model.lm_head import LMHead
from satlisa.model.memory_cache import MemoryCache
from satlisa.model.satlisa import SatLisa
from satlisa.processing.collator import Batch, Encoded, collate
from satlisa.processing.processor import encode_sample
from satlisa.runtime.hardware import dtype_name

_QUESTION = "Segment all buildings in this image and say in one sentence what else can be seen around them"
_ANSWER = "I segmented 3 buildings in the image; roads, trees and a river can be seen around them."
_SEG_STEP, _END_STEP = 8, 20  # when random weights are made to generate <SEG>, and to stop


@dataclass(frozen=True)
class Bench:
    """The setting of a measurement: device, model size ("full" or "demo"), dtype of the VLM, timed runs per side,
    samples per batch, gradient checkpointing."""

    device: torch.device
    size: str
    dtype: torch.dtype
    repeats: int
    batch_size: int
    checkpointed: bool = False

    def model(self) -> SatLisa:
        """A model of this size on this device."""
        model = make_model(self.size, self.device, self.dtype)
        if self.checkpointed:
            enable_gradient_checkpointing(model.qwen.model.language_model)
        return model


def encoder(bench: Bench) -> list[Row]:
    """SlimSAM's encoder against transformers' SamModel, float32."""
    model = bench.model()
    ours, peer = (_encoder_side(bench, which, model) for which in ("ours", "peer"))
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # convolutions take TF32 by default on CUDA
        difference = (ours() - peer()).abs().max().item()
    expect(difference < 1e-4, f"the encoders differ by {difference}")
    seconds = race(ours, peer, bench.repeats, bench.device)
    name = f"SAM encoder ({bench.size}), {bench.batch_size} × {model.segmenter.inputs.image_size}²"
    gap = f"{difference:.1e}"
    return [Row(name, *seconds, "s", gap), *memory_rows(name, bench, _encoder_side, gap)]


def train_step(bench: Bench) -> list[Row]:
    """Forward and backward of a batch, half text samples and half mask samples."""
    ours, peer, batch = training_sides(bench.model(), mixed_samples(bench))
    gap = compare_losses(bench, ours, peer)
    work, rate = operations(ours), matrix_rate(bench.device, bench.dtype)
    seconds = race(ours, peer, bench.repeats, bench.device)
    samples, tokens = batch.input_ids.shape
    name = f"training step ({bench.size}), {samples} × {tokens} tokens, half with a mask"
    timed = Row(name, *seconds, "s", gap)
    reached = work / timed.ours
    print(
        f"our training step does {work / 1e12:.3g} TFLOP at {reached / 1e12:.3g} TFLOP/s, {reached / rate:.0%} of the "
        f"{rate / 1e12:.3g} TFLOP/s of a large matrix product in {dtype_name(bench.dtype)}\n"
    )
    return [timed, timed.rate(f"{name}: throughput", samples)]


def compare_losses(bench: Bench, ours: Side, peer: Side) -> str:
    """The relative difference of two steps' losses, for the table; exits if it is more than rounding."""
    one, other = ours(), peer()
    gap = abs(one - other) / abs(other)
    expect(gap < (1e-3 if bench.dtype == torch.float32 else 2e-2), f"the losses differ: {one} and {other}")
    return f"loss {gap:.1e}, relative"


def inference(bench: Bench) -> list[Row]:
    """Answers with text and a mask: many images, then many questions about one image."""
    model = bench.model()
    peer = scripted_peer(model)
    images = [noise(IMAGE_SIDE[bench.size], seed) for seed in range(16)]
    rows = []
    for name, asked in (("16 images, one question each", images), ("one image, 4 questions", [images[0]] * 4)):
        prompts = [f"{_QUESTION} ({number})" for number in range(len(asked))]
        ours = partial(answer, model, asked, prompts, max_new_tokens=32, batch_size=16)
        theirs = partial(peer.answer, model, asked, prompts, max_new_tokens=32)
        difference = compare_answers(ours(), theirs(), bench.dtype)
        seconds = race(ours, theirs, bench.repeats, bench.device)
        rows.append(Row(f"answers with a mask ({bench.size}): {name}", *seconds, "s", difference))
    return rows


def evaluation(bench: Bench) -> list[Row]:
    """The loop of `infer_dataset.py` over synthetic scenes, with answers from either side."""
    model = bench.model()
    peer = scripted_peer(model)
    rows = demo_rows("test", 24)
    settings = EvalSettings(samples_per_task=4 if bench.size == "demo" else 1, batch_size=16, max_new_tokens=32)
    ours, theirs = partial(evaluate, model, rows, settings), partial(evaluate, model, rows, settings, None, peer.answer)
    one, other = (side()["samples"] for side in (ours, theirs))
    expect([s["output"] for s in one] == [s["output"] for s in other], "the answers differ")
    gap = max(abs((a["iou"] or 0) - (b["iou"] or 0)) for a, b in zip(one, other, strict=True))
    expect(gap < 0.02, f"an IoU differs by {gap}")
    seconds = race(ours, theirs, bench.repeats, bench.device)
    name = f"evaluation ({bench.size}) of {len(one)} samples"
    timed = Row(name, *seconds, "s", f"{told('texts', bench.dtype)}, IoU {gap:.1e}")
    return [timed, timed.rate(f"{name}: throughput", len(one))]


def cache(bench: Bench) -> list[Row]:
    """Loading and one training step of mask samples with `CACHE_SAM`: a later epoch against the first.

    And a step, half of the samples with masks, whose images `CACHE_MEMORY_GB` knows, against one without it.
    """
    model = bench.model().train()
    samples = [make_sample(bench, number, with_mask=True) for number in range(bench.batch_size)]
    with tempfile.TemporaryDirectory() as folder:
        model.segmenter.open_cache(folder, 10**10, model.compute_dtype)

        def step() -> float:
            return take_step(model, batch_of(model, samples)[0])

        def first() -> float:
            for entry in Path(folder).rglob("*.safetensors"):
                entry.unlink()
            return step()

        expect(first() == step(), "a recalled embedding changes the loss")
        seconds = race(step, first, bench.repeats, bench.device)
    name = f"{len(samples)} mask samples ({bench.size}): later epoch, first epoch"
    return [Row(name, *seconds, "s", "none"), _memory_cache(bench)]


def _memory_cache(bench: Bench) -> Row:
    model = bench.model().train()
    batch = batch_of(model, mixed_samples(bench))[0]
    model.keep_in_memory(10**10)
    memory = model.segmenter.memory

    def step(cache: MemoryCache | None) -> float:
        model.segmenter.memory = cache
        return take_step(model, batch)

    gap = abs(step(memory) - step(None))
    expect(gap < 1e-2, f"the loss differs by {gap}")
    seconds = race(partial(step, memory), partial(step, None), bench.repeats, bench.device)
    name = f"training step ({bench.size}, {bench.batch_size} samples): images in memory, images encoded"
    return Row(name, *seconds, "s", f"loss {gap:.1e}")


def memory(bench: Bench) -> list[Row]:
    """Peak memory of a training step, each side in its own process."""
    ours, peer, _ = training_sides(bench.model(), mixed_samples(bench))
    gap = compare_losses(bench, ours, peer)
    return memory_rows(f"training step ({bench.size})", bench, _prepare_step, gap)


def memory_rows(name: str, bench: Bench, prepare: Callable[[Bench, str], Side], difference: str) -> list[Row]:
    """Peak memory of both sides: on top of the models at rest, and in total."""
    ours, peer = (extra_memory(partial(prepare, bench, which), bench.device) for which in ("ours", "peer"))
    kinds = ("peak memory on top of the models", "total peak memory")
    return [Row(f"{name}: {kind}", a, b, "MB", difference) for kind, a, b in zip(kinds, ours, peer, strict=True)]


def _encoder_side(bench: Bench, which: str, model: SatLisa | None = None) -> Side:
    """Our encoder or transformers' own, without gradients, on the same random pixels."""
    model = model or bench.model()
    side = model.segmenter.inputs.image_size
    torch.manual_seed(2)
    pixels = torch.randn(bench.batch_size, 3, side, side, device=bench.device)
    encode = model.segmenter.encode if which == "ours" else torch.no_grad()(plain_sam(model).get_image_embeddings)
    return partial(encode, pixels)


def _prepare_step(bench: Bench, which: str) -> Side:
    ours, peer, _ = training_sides(bench.model(), mixed_samples(bench))
    return ours if which == "ours" else peer


def training_sides(model: SatLisa, samples: Sequence[Sample]) -> tuple[Side, Side, Batch]:
    """A training step of ours and of the peer's on the same samples; each returns its loss."""
    model.train()
    peer = Peer(model)
    batch, encoded = batch_of(model, samples)
    sam_pixels = model.segmenter.inputs.preprocess([sample.image for sample in samples]).to(model.device)

    def theirs() -> float:
        with unpatched_delta_net(model.device):
            return finish(model, peer.loss(batch, encoded, sam_pixels))

    return partial(take_step, model, batch), theirs, batch


def mixed_samples(bench: Bench) -> list[Sample]:
    """A batch of samples, half of them text samples and half of them mask samples."""
    return [make_sample(bench, n, with_mask=(bench.batch_size - n) % 2 == 1) for n in range(bench.batch_size)]


def batch_of(model: SatLisa, samples: Sequence[Sample]) -> tuple[Batch, list[Encoded]]:
    """Samples as a batch, and each one encoded."""
    encoded = [encode_sample(sample, model.processor, model.segmenter.inputs, model.config) for sample in samples]
    return collate(encoded, model.processor.tokenizer.pad_token_id).to(model.device), encoded


def take_step(model: SatLisa, batch: Batch) -> float:
    """Our forward and backward pass; returns the loss."""
    return finish(model, step_loss(model, batch))


def step_loss(model: SatLisa, batch: Batch) -> Tensor:
    """L of a batch that is an effective batch by itself."""
    losses = model(batch).losses
    loss: Tensor = losses.total(model.config, losses.num_tokens, losses.num_masks)
    return loss


def finish(model: SatLisa, loss: Tensor) -> float:
    """Backward; then zeros the gradients but keeps them allocated, as during accumulation."""
    loss.backward()
    model.zero_grad(set_to_none=False)
    return loss.item()


def make_sample(bench: Bench, number: int, *, with_mask: bool, more: str = "") -> Sample:
    """A sample of about 320 tokens (full) plus those of `more`, with its own image."""
    polygon = np.array([[0.1, 0.1], [0.6, 0.1], [0.6, 0.7], [0.1, 0.7]])
    regions = ((polygon,),) if with_mask else ()
    turns = (Turn("user", _QUESTION + more),)
    return Sample(number, "t", "s", noise(IMAGE_SIDE[bench.size], number), turns, _ANSWER, regions)


def noise(side: int, seed: int) -> Image.Image:
    """A noise image."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


class Script(LogitsProcessor):  # type: ignore[misc]
    """Makes random weights generate `<SEG>` and stop at fixed steps of every answer, on both sides.

    In half precision every other token is fixed too: rounding depends on the batch size, and the two most likely of a
    quarter of a million random logits lie closer together than that.
    """

    def __init__(self, seg_token_id: int, end_token_id: int, dtype: torch.dtype) -> None:
        self.at, self.step = {_SEG_STEP: seg_token_id, _END_STEP: end_token_id}, 0
        if dtype != torch.float32:
            self.at |= {step: step for step in range(1, _END_STEP) if step not in self.at}  # any ids of plain text

    def __call__(self, input_ids: Any, scores: Tensor) -> Tensor:
        """The logits (rows, V) of a step, changed in place."""
        self.step += 1
        scores[:, list(self.at.values())] = -torch.inf
        if self.step in self.at:
            scores[:, self.at[self.step]] = torch.inf
        self.step %= _END_STEP
        return scores


def scripted_peer(model: SatLisa) -> Peer:
    """Let a model follow the script; returns its peer, which follows it too, each with its own step counter."""
    peer = Peer(model)
    end = model.processor.tokenizer.eos_token_id
    script, theirs = (Script(model.seg_token_id, end, model.compute_dtype) for _ in range(2))
    peer.logits_processor = LogitsProcessorList([theirs])

    class ScriptedHead(LMHead):
        def logits(self, hidden: Tensor) -> Tensor:
            return script(None, super().logits(hidden))

    class Scripted(SatLisa):
        @property
        def head(self) -> LMHead:
            return ScriptedHead(*super().head)

    model.__class__ = Scripted
    return peer


def compare_answers(ours: Sequence[Answer], theirs: Sequence[Answer], dtype: torch.dtype) -> str:
    """The difference of two lists of answers, for the table; exits if tokens or more than a few pixels differ."""
    expect([a.token_ids for a in ours] == [b.token_ids for b in theirs], "the answers differ")
    pixels = max(float((a.masks != b.masks).mean()) for a, b in zip(ours, theirs, strict=True))
    expect(all(len(a.masks) == 1 for a in ours) and pixels < 0.01, f"{pixels:.2%} of a mask differ")
    return f"{told('tokens', dtype)}, {pixels:.3%} of a mask's pixels"


def told(what: str, dtype: torch.dtype) -> str:
    """How the table speaks of equal answers: in half precision `Script` has made them equal."""
    return f"same {what}" if dtype == torch.float32 else f"scripted {what}"


def expect(holds: bool, otherwise: str) -> None:
    """Exit unless both sides do the same work."""
    if not holds:
        raise SystemExit(f"not timed: {otherwise}")
