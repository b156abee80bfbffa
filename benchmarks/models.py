"""Models to measure: random weights in the real shapes (full) or the packaged demo backbone (demo). No hub is used.

Both sizes use the demo's tokenizer: the cost of a token does not depend on what it says.
"""

from typing import Any

import torch
from transformers import AutoProcessor, SamConfig, SamImageProcessor, SamModel

from satlisa.config import ModelConfig
from satlisa.demo.tiny_models import make_vlm
from satlisa.model.assemble import Parts, assemble
from satlisa.model.satlisa import SatLisa
from satlisa.pretrained.base_models import load_parts, model_source

# Qwen/Qwen3.5-0.8B and Zigeng/SlimSAM-uniform-77, as their config.json files say.
_TEXT = {
    "vocab_size": 248_320, "hidden_size": 1024, "intermediate_size": 3584, "num_hidden_layers": 24,
    "full_attention_interval": 4, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 256,
    "linear_num_key_heads": 16, "linear_num_value_heads": 16, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
    "max_position_embeddings": 262_144,
    "rope_parameters": {"rope_theta": 10_000_000.0, "mrope_section": [11, 11, 10]},
}  # fmt: skip
_VISION = {
    "depth": 12, "hidden_size": 768, "intermediate_size": 3072, "num_heads": 12, "out_hidden_size": 1024,
    "num_position_embeddings": 2304,
}  # fmt: skip
SLIMSAM_VISION = {"hidden_size": 168, "mlp_dim": 696}
IMAGE_SIDE = {"full": 512, "demo": 256}  # pixels: 256 and 64 image tokens


def make_model(size: str, device: torch.device, dtype: torch.dtype) -> SatLisa:
    """An assembled model in eval mode, with a nonzero LoRA B.

    Args:
        size: "full" or "demo".
        dtype: of the frozen VLM and of autocast; float32 disables autocast.
    """
    torch.manual_seed(0)
    demo = ModelConfig(vlm_model_id="demo:vlm", sam_model_id="demo:sam", projector_hidden_size=256)
    with device:  # a GPU draws 0.9 billion weights in no time
        model = assemble(load_parts(demo, dtype), demo, dtype) if size == "demo" else _full(dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
        model.seg_row.normal_(std=0.02)
    return model.to(device).eval()


def _full(dtype: torch.dtype) -> SatLisa:
    processor = AutoProcessor.from_pretrained(model_source("demo:vlm"))
    processor.image_processor.size = {"shortest_edge": 65_536, "longest_edge": 16_777_216}
    vlm = make_vlm(processor, _TEXT, _VISION).to(dtype)
    return assemble(Parts(vlm, processor, make_sam(), SamImageProcessor()), ModelConfig(), dtype)


def make_sam() -> SamModel:
    """SlimSAM-77 with random weights; its relative positions are not zero, unlike freshly initialized ones."""
    torch.manual_seed(1)
    sam = SamModel(SamConfig(vision_config=SLIMSAM_VISION))
    with torch.no_grad():
        for name, parameter in sam.vision_encoder.named_parameters():
            if "rel_pos" in name:
                parameter.normal_(std=0.3)
            elif parameter.ndim > 1:  # the default std of 1e-10 would make attention uniform
                parameter.normal_(std=0.1)
        sam.shared_image_embedding.positional_embedding.normal_()
    return sam.eval()


def plain_sam(model: SatLisa) -> Any:
    """transformers' SamModel with its own attention, sharing the weights of a model's segmenter."""
    ours: Any = model.segmenter.sam
    theirs = SamModel(ours.config).to(model.device)
    theirs.load_state_dict(ours.state_dict(), assign=True)
    return theirs.eval()
