"""A trained model and its directory."""

from copy import deepcopy
from pathlib import Path
from shutil import copytree

import pytest
import torch
from torch import Tensor

from satlisa.config import ModelConfig
from satlisa.inference.generation import answer
from satlisa.model.satlisa import SatLisa
from satlisa.pretrained.model_directory import save_model
from tests.helpers.model_fixtures import batch_of, make_model, make_samples

# All files of a model directory that are read.
FILES = (
    *("model_config.json", "seg_projector.pt", "sam_mask_decoder.pt", "seg_token.safetensors"),
    *("vlm_lora/adapter_config.json", "vlm_lora/adapter_model.safetensors"),
    *("tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json", "tokenizer/chat_template.jinja"),
)


@pytest.fixture(scope="session")
def trained(tiny_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[SatLisa, Path]:
    """A model after a few steps of training, and its directory; for `saved` alone, tests change what they get."""
    model = make_model(tiny_config, seed=5)
    batch = batch_of(model, make_samples(4))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        model(batch).losses.total(model.config, 10, 3).backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("trained") / "run"
    save_model(model, folder)
    return model.eval(), folder


@pytest.fixture
def saved(trained: tuple[SatLisa, Path], tmp_path: Path) -> tuple[SatLisa, Path]:
    """A trained model and its directory, copies that a test may change."""
    model, folder = trained
    return deepcopy(model), Path(copytree(folder, tmp_path / "run"))


def outputs(model: SatLisa) -> list[Tensor]:
    samples = make_samples(4)
    with torch.no_grad():
        found = model(batch_of(model, samples))
    answers = answer(model, [s.image for s in samples], [s.turns for s in samples], max_new_tokens=6)
    ids = [torch.tensor(a.token_ids) for a in answers]
    return [found.losses.text, found.losses.bce, found.mask_logits, found.scores, *ids]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
