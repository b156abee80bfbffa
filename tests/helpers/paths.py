"""Where the repository is, and which files a model directory holds."""

from pathlib import Path

ROOT = Path(__file__).parents[2]

MODEL_FILES = (
    *("model_config.json", "seg_projector.pt", "sam_mask_decoder.pt", "seg_token.safetensors"),
    *("vlm_lora/adapter_config.json", "vlm_lora/adapter_model.safetensors"),
    *("tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json", "tokenizer/chat_template.jinja"),
)
