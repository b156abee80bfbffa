"""Counts of parameters."""

import pytest
import torch
from transformers import Qwen3_5ForConditionalGeneration, SamModel

from satlisa.config import ModelConfig
from satlisa.model.assemble import assemble
from satlisa.model.parameters import count_parameters


@pytest.mark.integration
def test_parameter_counts_of_the_real_configurations(shared_data) -> None:  # type: ignore[no-untyped-def]
    """The table of docs/architecture.md#model, on the meta device: no weights, no memory."""
    from transformers import AutoProcessor, Qwen3_5Config, SamConfig, SamImageProcessor

    from satlisa.model.assemble import Parts

    vlm_dir, sam_dir = shared_data / "qwen3.5-0.8b", shared_data / "slimsam-77"
    with torch.device("meta"):
        vlm = Qwen3_5ForConditionalGeneration(Qwen3_5Config.from_pretrained(vlm_dir))
        sam = SamModel(SamConfig.from_pretrained(sam_dir))
        vlm.tie_weights()
        parts = Parts(vlm, AutoProcessor.from_pretrained(vlm_dir), sam, SamImageProcessor.from_pretrained(sam_dir))
        model = assemble(parts, ModelConfig())
    counts = count_parameters(model)
    assert counts["LoRA"] == (4_915_200, 4_915_200)
    assert counts["<SEG> row"] == (1_024, 1_024)
    assert counts["projector"] == (1_312_000, 1_312_000)
    assert counts["SlimSAM encoder"] == (5_658_968, 0)
    assert counts["SlimSAM mask decoder"] == (4_058_340, 4_058_340)
    assert counts["VLM"][1] == 0 and round(counts["VLM"][0] / 1e6) == 853
    assert model.seg_token_id == 248_077
