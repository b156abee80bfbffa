"""The command that pretrains the packaged models."""

import os
import subprocess
import sys

import pytest
import torch
from transformers import AutoProcessor, Qwen3_5ForConditionalGeneration, SamModel

from satlisa.demo.tiny_models import new_sam
from tests.helpers.chip_rows import RED, write_rows
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.integration
HALF = [[100, 100], [600, 100], [600, 900], [100, 900]]


def test_the_command_writes_both_folders(tmp_path):
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
        "sam-steps": 2,
        "adapt-steps": 1,
        "scenes": 12,
        "collages": 6,
        "validation-scenes": 3,
    }
    command = [sys.executable, "-m", "satlisa.demo.pretrain"]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, cwd=ROOT, env=environment, timeout=300, capture_output=True, text=True)
    assert "sam, stage 2, step 0/1" in done.stdout and "vlm, lists, step 0/1" in done.stdout
    assert "<SEG>" not in AutoProcessor.from_pretrained(tmp_path / "vlm").tokenizer.get_vocab()
    assert Qwen3_5ForConditionalGeneration.from_pretrained(tmp_path / "vlm").config.model_type == "qwen3_5"
    sam = SamModel.from_pretrained(tmp_path / "sam", dtype=torch.float32)
    first, untrained = (model.vision_encoder.patch_embed.projection.weight for model in (sam, new_sam(0)))
    assert first.norm() > 10 * untrained.norm()  # whitened
