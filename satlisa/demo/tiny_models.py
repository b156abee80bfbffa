"""The untrained demo backbone: scaled-down versions of both base models, and a tokenizer.

Sizes suit two CPU cores. The text model keeps the hybrid of linear and full attention, in turn instead of 3:1: full
attention looks back at the image, and finds more boxes the more layers of six have it (docs/demo_pretraining.md). SAM
keeps relative positions, windowed and global layers. The tokenizer has no `<SEG>`; the embedding has spare rows for it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
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

from satlisa.data.synthetic.terrain import SIDE

IMAGE_SIZE = SIDE  # side of both models' input, in pixels
IMAGE_TOKENS = 64  # of the VLM, of a square image
SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
_THINKING = ("<think>", "</think>")  # added tokens, not special: they stay in decoded text, as in Qwen3.5
_VOCABULARY = 1000  # upper bound; the scenes' texts yield fewer merges
_SPARE_ROWS = 32

# Splits into words, single digits, punctuation, line breaks and blanks; coordinates become one token per digit.
_SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"

# Renders plain chats with images exactly as Qwen3.5's template does; no tools, videos or thinking.
CHAT_TEMPLATE = """\
{%- macro say(content) -%}
    {%- if content is string -%}
        {{- content | trim -}}
    {%- else -%}
        {%- set written = namespace(text='') -%}
        {%- for part in content -%}
            {%- if part.type == 'image' -%}
                {%- set written.text = written.text + '<|vision_start|><|image_pad|><|vision_end|>' -%}
            {%- elif part.type == 'text' -%}
                {%- set written.text = written.text + part.text -%}
            {%- else -%}
                {{- raise_exception('the demo model reads text and images, not ' ~ part.type) -}}
            {%- endif -%}
        {%- endfor -%}
        {{- written.text | trim -}}
    {%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
    {{- '<|im_start|>' + message.role + '\\n' + say(message.content) + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n<think>\\n' -}}
    {%- if not enable_thinking -%}
        {{- '\\n</think>\\n\\n' -}}
    {%- endif -%}
{%- endif -%}
"""


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on these texts, followed by Qwen's special tokens.

    It encodes any text, falling back to bytes; digits are never merged.
    """
    core = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    core.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=_VOCABULARY, initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator(texts, trainer)
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    core.add_tokens([AddedToken(token, special=False, normalized=False) for token in _THINKING])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="right",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
        extra_special_tokens={
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "vision_bos_token": "<|vision_start|>",
            "vision_eos_token": "<|vision_end|>",
        },
    )


def make_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLProcessor:
    """The VLM's processor; it resizes every image to about IMAGE_SIZE² pixels, 64 tokens, keeping its aspect ratio."""
    pixels = IMAGE_SIZE**2
    images = Qwen2VLImageProcessor(
        patch_size=16,
        merge_size=2,
        temporal_patch_size=2,
        size={"shortest_edge": pixels, "longest_edge": pixels},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return Qwen3VLProcessor(images, tokenizer, Qwen3VLVideoProcessor(), chat_template=tokenizer.chat_template)


def make_vlm(processor: Qwen3VLProcessor, text: dict[str, Any], vision: dict[str, Any]) -> Any:
    """An untrained Qwen3.5, float32, for this processor's tokens.

    Args:
        text, vision: sizes of the language model and of the vision tower; what does not vary is added.
    """
    token = {name: processor.tokenizer.convert_tokens_to_ids(name) for name in SPECIAL_TOKENS}
    rope = {"rope_type": "default", "partial_rotary_factor": 0.25, "mrope_interleaved": True, **text["rope_parameters"]}
    end, padding = token["<|im_end|>"], token["<|endoftext|>"]
    shared = {"rope_parameters": rope, "tie_word_embeddings": True, "pad_token_id": padding, "eos_token_id": end}
    patches = {"patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2, "deepstack_visual_indexes": []}
    config = Qwen3_5Config(
        text_config={**text, **shared},
        vision_config={**vision, **patches},
        image_token_id=token["<|image_pad|>"],
        video_token_id=token["<|video_pad|>"],
        vision_start_token_id=token["<|vision_start|>"],
        vision_end_token_id=token["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    model = Qwen3_5ForConditionalGeneration(config)
    model.generation_config.eos_token_id = [end, padding]
    model.generation_config.pad_token_id = padding
    return model


def new_vlm(processor: Qwen3VLProcessor, seed: int) -> Any:
    """A small Qwen3.5: six layers of width 192 (every second full attention), a vision tower of three of width 128."""
    text = {
        "vocab_size": -(-(len(processor.tokenizer) + _SPARE_ROWS) // 64) * 64,
        "hidden_size": 192, "intermediate_size": 448, "num_hidden_layers": 6, "full_attention_interval": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
        "linear_num_key_heads": 4, "linear_num_value_heads": 4, "linear_key_head_dim": 32, "linear_value_head_dim": 48,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_theta": 1000.0, "mrope_section": [3, 3, 2]},  # positions stay below a few hundred
    }  # fmt: skip
    vision = {
        "depth": 3, "hidden_size": 128, "intermediate_size": 320, "num_heads": 4, "out_hidden_size": 192,
        "num_position_embeddings": 256,
    }  # fmt: skip
    torch.manual_seed(seed)
    return make_vlm(processor, text, vision)


def new_sam(seed: int) -> SamModel:
    """An untrained SAM, float32: 256² input, four layers of width 96 (the last global), 32×32 embedding of width 64.

    The random Fourier features of positions have std 1, as in segment-anything. transformers uses half the encoder's
    width as std, 48 here: even neighbouring positions then have unrelated encodings, and 1,200 steps with box prompts
    reach only IoU 0.28.
    """
    vision = {
        "hidden_size": 96, "output_channels": 64, "num_hidden_layers": 4, "num_attention_heads": 2, "mlp_dim": 288,
        "image_size": IMAGE_SIZE, "patch_size": 8, "window_size": 8, "global_attn_indexes": [3],
        "num_pos_feats": 32,  # half of output_channels
        "initializer_range": 0.02,  # the default, 1e-10, suits loading weights; training from it would not start
    }  # fmt: skip
    prompts = {"hidden_size": 64, "image_size": IMAGE_SIZE, "patch_size": 8, "mask_input_channels": 8}
    decoder = {
        "hidden_size": 64, "mlp_dim": 192, "num_hidden_layers": 2, "num_attention_heads": 4, "iou_head_hidden_dim": 64
    }  # fmt: skip
    torch.manual_seed(seed)
    model = SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder))
    model.shared_image_embedding.positional_embedding.data.normal_()
    return model


def sam_processor() -> SamImageProcessor:
    """SAM's preprocessing at the demo's size, with ImageNet mean and std as in SAM."""
    return SamImageProcessor(size={"longest_edge": IMAGE_SIZE}, pad_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})


def save(model: Any, processor: Any, folder: Path) -> None:
    """Save a model in the hub's layout. Float16 halves the size; fine-tuning in float32 tolerates the rounding."""
    model.half().save_pretrained(folder)
    processor.save_pretrained(folder)
    model.float()
