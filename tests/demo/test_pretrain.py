"""The command that pretrains the packaged models."""

import json
import os
import subprocess
import sys

import pytest
from transformers import AutoProcessor, Qwen3_5ForConditionalGeneration

from tests.helpers.paths import ROOT

pytestmark = pytest.mark.integration


def test_the_command_writes_both_folders(tmp_path):
    command = f"-m satlisa.demo.pretrain --output {tmp_path} --vlm-steps 2 --sam-steps 2 --scenes 12".split()
    command += [
        "--tower-steps",
        "1",
        "--broaden-steps",
        "3",
        "--adapt-steps",
        "1",
        "--collages",
        "6",
        "--validation-scenes",
        "3",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *command], check=True, cwd=ROOT, env=environment, timeout=300)
    assert "<SEG>" not in AutoProcessor.from_pretrained(tmp_path / "vlm").tokenizer.get_vocab()
    assert Qwen3_5ForConditionalGeneration.from_pretrained(tmp_path / "vlm").config.model_type == "qwen3_5"
    assert json.loads((tmp_path / "sam" / "config.json").read_text())["model_type"] == "sam"
