"""Base models that cannot be loaded."""

import shutil
from pathlib import Path

import pytest

from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from tests.helpers.model_fixtures import make_model
from tests.helpers.saved_models import cut


def test_a_damaged_base_model_is_named(tiny_config: ModelConfig, tmp_path: Path) -> None:
    shutil.copytree(tiny_config.vlm_model_id, tmp_path / "vlm")
    cut(tmp_path / "vlm" / "model.safetensors")
    with pytest.raises(SatlisaError, match=r"vlm_model_id: cannot load .*VLM_MODEL"):
        make_model(ModelConfig(**{**vars(tiny_config), "vlm_model_id": str(tmp_path / "vlm")}))
