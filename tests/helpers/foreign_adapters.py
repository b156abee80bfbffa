"""Adapters that PEFT itself trains and saves, and the logits that it computes with them."""

import shutil
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import Qwen3_5ForConditionalGeneration

from satlisa.config import ModelConfig
from satlisa.model.satlisa import SatLisa

IDS = torch.tensor([[70, 5, 263, 7, 9, 263, 12, 300]])  # 263 is <SEG>


def train_with_peft(config: ModelConfig, folder: Path, layers: dict[str, Any], common: bool = False) -> Tensor:
    """Replace the adapter of a directory by one of PEFT's with random values; the logits (T, V) that it gives.

    Args:
        common: give both vocabulary matrices the same values.
    """
    torch.manual_seed(1)
    base = Qwen3_5ForConditionalGeneration.from_pretrained(config.vlm_model_id, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(**{"r": 4, "target_modules": ["q_proj", "out_proj"], **layers})).eval()
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.normal_(std=0.3)
        if common:
            one, other = (m.modules_to_save.default.weight for m in (base.get_input_embeddings(), base.lm_head))
            other.copy_(one)
        logits: Tensor = model(input_ids=IDS).logits[0]
    shutil.rmtree(folder / "vlm_lora")
    model.save_pretrained(folder / "vlm_lora")
    (folder / "seg_token.safetensors").unlink()
    return logits


def logits_of(model: SatLisa) -> Tensor:
    positions = torch.arange(IDS.shape[1]).expand(3, 1, -1)
    with torch.no_grad():
        return model.head.logits(model.run_text(model.embed(IDS), torch.ones_like(IDS), positions)[0])
