"""Tiny models of the two real architectures, with random weights, as folders in the hub's layout."""

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    SamConfig,
    SamImageProcessor,
    SamModel,
)

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
VOCABULARY_ROWS = 320

TEMPLATE = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}"
    "{%- if m.content is string %}{{- m.content }}{%- else %}{%- for p in m.content %}"
    "{{- '<|vision_start|><|image_pad|><|vision_end|>' if p.type == 'image' else p.text }}{%- endfor %}{%- endif %}"
    "{{- '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """A token per byte, then Qwen's special tokens: 263 tokens, rows 263.. are spare."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL[3:] + SPECIAL[1:2],
        chat_template=TEMPLATE,
        model_max_length=4096,
        extra_special_tokens={
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "vision_bos_token": "<|vision_start|>",
            "vision_eos_token": "<|vision_end|>",
        },
    )


def vlm_config() -> Qwen3_5Config:
    """Three linear-attention layers and a full one, as in every block of four of the real model."""
    token = {name: 256 + i for i, name in enumerate(SPECIAL)}
    return Qwen3_5Config(
        text_config=dict(
            vocab_size=VOCABULARY_ROWS,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=4,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            linear_num_key_heads=2,
            linear_num_value_heads=2,
            linear_key_head_dim=16,
            linear_value_head_dim=16,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            pad_token_id=token["<|endoftext|>"],
            eos_token_id=token["<|im_end|>"],
            rope_parameters=dict(
                rope_type="default",
                rope_theta=10000.0,
                partial_rotary_factor=0.25,
                mrope_section=[1, 1, 0],
                mrope_interleaved=True,
            ),
        ),
        vision_config=dict(
            depth=2,
            hidden_size=32,
            intermediate_size=48,
            num_heads=2,
            patch_size=8,
            spatial_merge_size=2,
            temporal_patch_size=2,
            out_hidden_size=32,
            num_position_embeddings=64,
            deepstack_visual_indexes=[],
        ),
        image_token_id=token["<|image_pad|>"],
        video_token_id=token["<|video_pad|>"],
        vision_start_token_id=token["<|vision_start|>"],
        vision_end_token_id=token["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def sam_config() -> SamConfig:
    """64² input, 8×8 embedding, 32² masks; one windowed and one global layer with relative positions."""
    return SamConfig(
        vision_config=dict(
            hidden_size=32,
            output_channels=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=64,
            patch_size=8,
            window_size=4,
            global_attn_indexes=[1],
            mlp_dim=48,
            num_pos_feats=8,
        ),
        prompt_encoder_config=dict(hidden_size=16, image_size=64, patch_size=8, mask_input_channels=8),
        mask_decoder_config=dict(
            hidden_size=16, mlp_dim=32, num_hidden_layers=2, num_attention_heads=2, iou_head_hidden_dim=16
        ),
    )


def write_vlm(folder: Path, seed: int = 0) -> Path:
    """The VLM and its processor as a hub folder."""
    torch.manual_seed(seed)
    model = Qwen3_5ForConditionalGeneration(vlm_config())
    model.generation_config.eos_token_id = [258, 256]
    model.generation_config.pad_token_id = 256
    model.save_pretrained(folder)
    images = Qwen2VLImageProcessor(
        patch_size=8, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 32 * 32, "longest_edge": 64 * 64}
    )
    Qwen3VLProcessor(images, tokenizer(), Qwen3VLVideoProcessor(), chat_template=TEMPLATE).save_pretrained(folder)
    return folder


def write_sam(folder: Path, seed: int = 0) -> Path:
    """SAM with relative positions that are not zero, as a hub folder."""
    torch.manual_seed(seed)
    model = SamModel(sam_config())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "rel_pos" in name:  # fresh ones are zero, which would hide mistakes
                parameter.normal_(std=0.1)
    model.save_pretrained(folder)
    SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder
