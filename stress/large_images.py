"""Evaluate rows with images of 12 megapixels and 32 masks each, within 1.5 GiB on top of the model."""

import io
import json
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

from benchmarks.measure import Side, extra_memory
from benchmarks.models import make_model
from satlisa.evaluation.evaluate import evaluate
from satlisa.evaluation.partial_report import PartialReport
from satlisa.evaluation.report import write_report
from satlisa.evaluation.windows import EvalSettings
from satlisa.inference import generation
from satlisa.inference.decoding import Generated

_SIDES = (4000, 3000)
_MASKS = 32
_ALLOWED = 1.5 * 2**30  # bytes on top of the model


def make_row(number: int) -> dict[str, Any]:
    """A coarse pattern and a grid of squares."""
    rng = np.random.default_rng(number)
    picture = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize(_SIDES)
    picture.save(file := io.BytesIO(), "jpeg")
    corners = [(x, y) for x in range(0, 960, 120) for y in range(0, 960, 240)][:_MASKS]
    polygons = [[[x, y], [x + 80, y], [x + 80, y + 150], [x, y + 150]] for x, y in corners]
    turns = [{"role": "user", "content": "Segment all"}, {"role": "assistant", "content": "Here they are."}]
    return {
        "task": "instance_segmentation",
        "source": "squares",
        "image": {"bytes": file.getvalue(), "path": None},
        "conversations": json.dumps(turns),
        "metadata": json.dumps({"polygons": polygons}),
    }


def many_masks(model: Any, prompts: Any, *_: Any) -> list[Generated]:
    """What generation would give for answers of many `<SEG>`, whatever the weights."""
    width = model.qwen.config.text_config.hidden_size
    states = torch.randn(_MASKS, width, generator=torch.Generator().manual_seed(0)).to(model.device)
    return [Generated([model.seg_token_id] * _MASKS, states) for _ in prompts]


def prepare(folder: Path, count: int, size: str, device: torch.device) -> Side:
    """An evaluation that is ready to start."""
    model, rows = make_model(size, device, torch.float32), [make_row(number) for number in range(count)]
    mock.patch.object(generation, "generate", many_masks).start()
    settings = EvalSettings(samples_per_task=0, report_samples=2)

    def run() -> None:
        with PartialReport(folder) as report:
            results = evaluate(model, rows, settings, report)
            write_report(results, report.folder)
        if any(entry["error"] or entry["segs"] != _MASKS for entry in results["samples"]):
            raise SystemExit(f"not every row was scored: {results['tasks']}")

    return run


def main(folder: Path, count: int, size: str = "demo") -> tuple[int, int, list[str]]:
    """Rows tried, rows evaluated within the memory, and what was lost."""
    device = torch.device("cpu")
    extra, total = extra_memory(partial(prepare, folder / "report", count, size, device), device)
    print(f"  {count} images of 12 megapixels, {_MASKS} masks each, {size} model")
    print(f"  peak memory: {extra:.0f} MB on top of the model, {total:.0f} MB in all")
    if extra * 1e6 <= _ALLOWED:
        return count, count, []
    return count, 0, [f"{extra:.0f} MB on top of the model, more than {_ALLOWED / 1e6:.0f}"]
