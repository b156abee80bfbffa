"""Fixtures that several test files share: tiny model folders, a wired tiny model, samples to feed it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.utils.rnn import pad_sequence

from satlisa.config import ModelConfig
from satlisa.data.sample import Sample, Turn
from satlisa.data.sampler import IndexedSampler
from satlisa.geometry.regions import Region
from satlisa.model.assemble import assemble
from satlisa.model.satlisa import SatLisa
from satlisa.pretrained.base_models import load_parts
from satlisa.processing.collator import Batch, Encoded, collate
from satlisa.processing.processor import encode_sample
from satlisa.training.loader import RowEncoder, StepLoader
from tests.helpers import tiny

SLIMSAM = {"image_size": 1024, "mask_size": 256}  # pixels


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    """Settings that name the tiny folders, written once per session."""
    folder = tmp_path_factory.mktemp("tiny")
    vlm, sam = tiny.write_vlm(folder / "vlm"), tiny.write_sam(folder / "sam")
    return ModelConfig(
        vlm_model_id=str(vlm), sam_model_id=str(sam), vlm_hidden_size=32, projector_hidden_size=24, sam_prompt_size=16
    )


def make_model(config: ModelConfig, seed: int = 0) -> SatLisa:
    """A freshly wired tiny model; LoRA's B is made non-zero so that its part is felt."""
    torch.manual_seed(seed)
    model = assemble(load_parts(config, torch.float32), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
        model.seg_row.normal_(std=0.02)
    return model


def encode(model: SatLisa, sample: Sample) -> Encoded:
    """A sample in tensors, with the model's own processor and settings."""
    return encode_sample(sample, model.processor, model.segmenter.inputs, model.config)


def batch_of(model: SatLisa, samples: Sequence[Sample]) -> Batch:
    """Samples as the batch that the model takes."""
    encoded = [encode(model, s) for s in samples]
    return collate(encoded, model.processor.tokenizer.pad_token_id)


def labels_of(model: SatLisa, samples: Sequence[Sample]) -> torch.Tensor:
    """(B, T) labels as `transformers` wants them, made of prompts and answers and not of a batch's flat positions."""
    encoded = [encode(model, s) for s in samples]
    rows = [torch.cat([torch.full_like(e.prompt.input_ids, -100), e.answer_ids]) for e in encoded]
    return pad_sequence(rows, batch_first=True, padding_value=-100)


@contextmanager
def kept_for_backward() -> Iterator[list[torch.Tensor]]:
    """What autograd holds meanwhile, from forward to backward."""
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


@pytest.fixture
def tiny_model(tiny_config: ModelConfig) -> SatLisa:
    return make_model(tiny_config)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Noise, so that every pixel matters."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def box(x0: float, y0: float, x1: float, y1: float) -> Region:
    """A rectangle as a region of one polygon."""
    return (np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=np.float64),)


def make_samples(count: int = 16) -> list[Sample]:
    """Text samples, samples with one mask and with several, in images of different shapes."""
    sizes = [(64, 48), (50, 64), (64, 64), (40, 33)]
    samples = []
    for i in range(count):
        regions: tuple[Region, ...] = ()
        if i % 4 == 1:
            regions = (box(0.1, 0.1, 0.6, 0.7),)
        if i % 4 == 3:
            regions = (box(0.1, 0.1, 0.4, 0.4), box(0.5, 0.5, 0.9, 0.8), box(0.0, 0.7, 0.3, 1.0))[: 2 + i % 3 % 2]
        turns = (Turn("user", f"What is in image number {i}?" + " Please." * (i % 3)),)
        samples.append(
            Sample(
                i, "t", "s", picture(*sizes[i % 4], seed=i), turns, "yes" if i % 2 else "a river and a road", regions
            )
        )
    return samples


def make_loader(
    model: Any, made: Any, batch_size: int, accumulate: int = 1, limit: int = 0, seed: int | None = None, **more: int
) -> StepLoader:
    """Steps of `accumulate` batches of such rows."""
    encoder = RowEncoder(model.processor, model.segmenter.inputs, model.config)
    return StepLoader(IndexedSampler(made, limit, seed), encoder, batch_size * accumulate, batch_size, **more)
