"""Memory of merging LoRA into the VLM, against PEFT's `merge_and_unload` of a loaded model: resident, on a CPU."""

import shutil
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from peft import PeftModel
from transformers import Qwen3_5ForConditionalGeneration

from benchmarks.measure import Row, Side, extra_memory
from benchmarks.models import make_model
from benchmarks.works import Bench, expect
from satlisa.pretrained.merging import merge_model
from satlisa.pretrained.model_directory import save_model
from satlisa.pretrained.streamed_tensors import stored_tensors, weight_files

_CPU = torch.device("cpu")


def merging(bench: Bench) -> list[Row]:
    """Peak memory on top of the imported libraries and in total; prints the size of the weights."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        extra_memory(partial(_prepare_folder, folder, bench), _CPU)  # in another process: nothing of it stays here
        size = sum(path.stat().st_size for path in weight_files(folder / "vlm")) / 1e6
        peaks = [extra_memory(partial(prepare, folder), _CPU) for prepare in (_prepare_ours, _prepare_peer)]
        difference = _compare(folder)
    print(f"weights of the VLM: {size:,.0f} MB\n")
    return [
        Row(f"merging LoRA ({bench.size}): {kind}", ours, peer, "MB", difference)
        for kind, ours, peer in zip(("peak memory on top of libraries", "total peak memory"), *peaks, strict=True)
    ]


def _prepare_folder(folder: Path, bench: Bench) -> Side:
    """A model directory with random weights, and the base models that it names."""
    model = make_model(bench.size, _CPU, bench.dtype)
    model.config = replace(model.config, vlm_model_id=str(folder / "vlm"), sam_model_id=str(folder / "sam"))
    save_model(model, folder / "trained")
    model.segmenter.sam.save_pretrained(folder / "sam")
    model.segmenter.inputs.image_processor.save_pretrained(folder / "sam")
    model.processor.save_pretrained(folder / "vlm")
    model.vlm.unload().save_pretrained(folder / "vlm")
    return lambda: None


def _prepare_ours(folder: Path) -> Side:
    return lambda: merge_model(folder / "trained", folder / "ours")


def _prepare_peer(folder: Path) -> Side:
    def merge() -> None:
        base = Qwen3_5ForConditionalGeneration.from_pretrained(folder / "vlm", dtype="auto")
        PeftModel.from_pretrained(base, folder / "trained" / "vlm_lora").merge_and_unload().save_pretrained(
            folder / "peer"
        )

    return merge


def _compare(folder: Path) -> str:
    """The largest difference of a merged weight; vocabulary matrices, where ours has the `<SEG>` row too, aside."""
    ours, peer = (stored_tensors(weight_files(folder / which)[0]) for which in ("ours", "peer"))
    expect(ours.keys() >= peer.keys(), "the two folders hold other tensors")
    names = [name for name in peer if "embed_tokens" not in name]
    gap = max(float((ours[name].read().float() - peer[name].read().float()).abs().max()) for name in names)
    shutil.rmtree(folder / "peer")
    expect(gap < 0.05, f"merged weights differ by {gap}")
    return f"{gap:.1e}"
