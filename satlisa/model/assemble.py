"""Assemble pretrained parts into a model: LoRA, `<SEG>` token, freezing, precision."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import AddedToken
from torch import Tensor

from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from satlisa.model.delta_net import patch_delta_net
from satlisa.model.parameters import TRAINED, part_of
from satlisa.model.precision import keep_in_float32, layer_dtype
from satlisa.model.sam_attention import use_relative_attention
from satlisa.model.satlisa import SatLisa
from satlisa.model.segmenter import Segmenter
from satlisa.processing.chat import limit_image_tokens


@dataclass(frozen=True)
class Parts:
    """Pretrained parts before assembly: the VLM and its processor, SAM and its image processor."""

    vlm: Any
    processor: Any
    sam: Any
    sam_processor: Any


def assemble(
    parts: Parts,
    config: ModelConfig,
    compute_dtype: torch.dtype = torch.float32,
    with_adapter: Callable[[Any], Any] | None = None,
    seg_row: Tensor | None = None,
) -> SatLisa:
    """Assemble the parts: add `<SEG>` to the tokenizer and LoRA to the language model, freeze everything else.

    Patches transformers' delta-net functions process-wide (`patch_delta_net`), and modifies `parts` in place.

    Args:
        config: its widths and `seg_token_id` are overwritten with those of the parts.
        with_adapter: loads a trained adapter onto the VLM, instead of fresh LoRA layers (`peft_adapter.put_adapter`).
        seg_row: (D,) embedding of `<SEG>`; by default the mean of the vocabulary rows in use.

    Raises:
        SatlisaError: no free vocabulary row for `<SEG>`, or LoRA targets that the language model does not have.
    """
    seg_token_id = add_seg_token(parts.processor.tokenizer, parts.vlm, config.seg_token)
    config = replace(
        config,
        seg_token_id=seg_token_id,
        vlm_hidden_size=parts.vlm.config.text_config.hidden_size,
        sam_prompt_size=parts.sam.config.prompt_encoder_config.hidden_size,
    )
    limit_image_tokens(parts.processor, config.max_image_tokens)
    patch_delta_net()
    if seg_row is None:
        matrix = parts.vlm.get_input_embeddings().weight
        seg_row = matrix.detach()[:seg_token_id].float().mean(dim=0)
    vlm = add_lora(parts.vlm, config) if with_adapter is None else with_adapter(parts.vlm)
    use_relative_attention(parts.sam)
    model = SatLisa(vlm, Segmenter(parts.sam, parts.sam_processor), parts.processor, config, seg_row, compute_dtype)
    set_trainable(model)
    if layer_dtype(compute_dtype) != compute_dtype:
        keep_in_float32(model)
    return model


def add_seg_token(tokenizer: Any, vlm: Any, seg_token: str) -> int:
    """Add `<SEG>` to the tokenizer, on the next unused vocabulary row, and return its id.

    The embedding is not resized: Qwen3.5's has 248,320 rows for 248,077 tokens, and
    `resize_token_embeddings(len(tokenizer))` would shrink it.
    """
    if seg_token not in tokenizer.get_vocab():
        tokenizer.add_tokens([AddedToken(seg_token, special=True)])
    token_id, rows = int(tokenizer.convert_tokens_to_ids(seg_token)), vlm.get_input_embeddings().num_embeddings
    if token_id >= rows:
        raise SatlisaError(f"{seg_token} would be token {token_id}, but the base model has {rows} vocabulary rows")
    return token_id


def add_lora(vlm: Any, config: ModelConfig) -> Any:
    """Add fresh LoRA layers to the language model's token mixers, not to the vision tower."""
    names = "|".join(re.escape(name) for name in config.lora_target_modules)
    targets = rf".*language_model\..*\.({names})"
    if not any(re.fullmatch(targets, name) for name, _ in vlm.named_modules()):
        raise SatlisaError(f"lora_target_modules: the language model has none of {config.lora_target_modules}")
    vlm.name_or_path = config.vlm_model_id  # PEFT saves it as base_model_name_or_path; a local path is not portable
    settings = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets,
    )
    return get_peft_model(vlm, settings)


def set_trainable(model: SatLisa) -> None:
    """Train LoRA, the `<SEG>` row, the projector and the mask decoder, in float32; freeze the rest."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part_of(name) in TRAINED)
        if parameter.requires_grad and parameter.dtype != torch.float32:
            parameter.data = parameter.data.float()


def enable_gradient_checkpointing(language_model: Any) -> None:
    """Turn on transformers' gradient checkpointing, non-reentrant."""
    # transformers 5.24 renamed `gradient_checkpointing_enable`.
    name = "activation_checkpointing_enable"
    enable = getattr(language_model, name, None) or language_model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
