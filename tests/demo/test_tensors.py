"""Inputs of many images at once against what the processors and the model itself make of them."""

import numpy as np
import pytest
import torch

from satlisa.demo.tensors import Tower, sam_pixels, vlm_patches
from satlisa.demo.tiny_models import make_processor, new_vlm, sam_processor, train_tokenizer
from tests.helpers.scenes import PHRASES, unseen_scenes


@pytest.fixture(scope="module")
def pixels():
    return torch.from_numpy(np.stack([scene.pixels for scene in unseen_scenes(2)]))


def test_patches_are_those_of_the_processor(pixels):
    images = make_processor(train_tokenizer(PHRASES)).image_processor
    expected = images(images=[*pixels.numpy()], return_tensors="pt")["pixel_values"]
    assert torch.allclose(vlm_patches(pixels).flatten(0, 1), expected, atol=1e-6)


def test_sams_input_is_that_of_its_processor(pixels):
    expected = sam_processor()(images=[*pixels.numpy()], return_tensors="pt")["pixel_values"]
    assert torch.allclose(sam_pixels(pixels), expected, atol=1e-5)


def test_a_batched_tower_is_the_tower(pixels):
    processor = make_processor(train_tokenizer(PHRASES))
    visual = new_vlm(processor, 0).model.visual
    with torch.no_grad():
        visual.pos_embed.weight.normal_()  # so that their order matters
        inputs = processor.image_processor(images=[*pixels.numpy()], return_tensors="pt")
        expected = visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
        assert torch.allclose(Tower(visual, 256)(pixels).flatten(0, 1), expected, atol=1e-5)


def test_an_image_of_another_size_is_refused():
    with pytest.raises(ValueError, match="64 patches for 256 position embeddings"):
        Tower(new_vlm(make_processor(train_tokenizer(PHRASES)), 0).model.visual, 128)
