"""The command that pretrains the packaged models."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor, Qwen3_5ForConditionalGeneration, SamModel

from satlisa.demo.tiny_models import new_sam
from tests.helpers.chip_rows import RED, write_rows
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.integration
HALF = [[100, 100], [600, 100], [600, 900], [100, 900]]


def run(options: dict[str, object]) -> subprocess.CompletedProcess[str]:
    """Run the command, with a thread."""
    command = [sys.executable, "-m", "satlisa.demo.pretrain"]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, check=False, cwd=ROOT, env=environment, timeout=300, capture_output=True, text=True)


def test_the_command_resumes_and_writes_both_folders(tmp_path: Path) -> None:
    rows = [
        ("building_segmentation", "Segment the buildings", "One building.", {"polygons": [HALF]}, RED),
        ("scene_classification", "Classify", "Land", {}, RED),
    ]
    write_rows(tmp_path / "chips" / "train", rows)
    options = {
        "output": tmp_path,
        "chips": tmp_path / "chips",
        "tower-steps": 1,
        "vlm-steps": 1,
        "list-steps": 1,
        "crowded-scenes": 2,
        "adapt-steps": 1,
        "scenes": 12,
        "collages": 6,
        "validation-scenes": 3,
    }
    failed = run({**options, "sam-steps": 0})  # which no schedule of the learning rate takes
    assert failed.returncode == 1 and failed.stderr.endswith("pretraining failed: sam\n")
    assert "lists step 0/1" in failed.stdout and (tmp_path / "vlm.checkpoint.pt").exists()

    other = run({**options, "sam-steps": 2, "vlm-steps": 3})
    assert other.returncode == 1 and other.stdout == ""
    assert other.stderr.startswith("error:") and "vlm_steps 1 instead of 3" in other.stderr

    done = run({**options, "sam-steps": 2})
    assert done.returncode == 0, done.stderr
    assert "lists: 1 of 1 steps were done before" in done.stdout and "lists step" not in done.stdout
    assert "sam, stage 2, step 0/1" in done.stdout
    assert not [*tmp_path.glob("*.checkpoint.pt")]
    assert "<SEG>" not in AutoProcessor.from_pretrained(tmp_path / "vlm").tokenizer.get_vocab()
    assert Qwen3_5ForConditionalGeneration.from_pretrained(tmp_path / "vlm").config.model_type == "qwen3_5"
    sam = SamModel.from_pretrained(tmp_path / "sam", dtype=torch.float32)
    first, untrained = (model.vision_encoder.patch_embed.projection.weight for model in (sam, new_sam(0)))
    assert first.norm() > 10 * untrained.norm()  # whitened
