"""Whitening of SAM's patch embedding."""

import torch
import torch.nn.functional as F

from satlisa.demo.tiny_models import new_sam
from satlisa.demo.whitening import whiten_details


def outputs(model, pixels):
    projection = model.vision_encoder.patch_embed.projection
    return F.conv2d(pixels, projection.weight, projection.bias, stride=8).flatten(2).transpose(1, 2).flatten(0, 1)


@torch.no_grad()
def test_unused_directions_get_details_and_used_ones_stay():
    model = new_sam(0)
    weight = model.vision_encoder.patch_embed.projection.weight
    # Two mixtures of mean colours reach the output.
    seen = torch.randn(2, 3, generator=torch.Generator().manual_seed(1))
    weight.copy_((torch.randn(96, 2) @ seen.repeat_interleave(64, 1)).view(96, 3, 8, 8))
    noise = torch.randn(4, 3, 256, 256)
    pixels = F.interpolate(torch.randn(4, 3, 8, 8), (256, 256), mode="bilinear") * 2 + 0.1 * noise
    before = outputs(model, pixels)
    assert whiten_details(model, pixels, 0.5, seed=0) <= 2
    after = outputs(model, pixels)
    basis = torch.linalg.svd(before - before.mean(0), full_matrices=False).Vh
    used, unused = basis[:2], torch.linalg.svd(basis[:2]).Vh[2:]
    assert torch.allclose(after @ used.T, before @ used.T, atol=1e-2)
    spread = (after @ unused.T).std(0)
    assert (before @ unused.T).std(0).max() < 1e-3 and spread.min() > 0.2 and spread.max() < 0.6


@torch.no_grad()
def test_the_same_seed_adds_the_same_details():
    pixels, first, second = torch.randn(2, 3, 256, 256), new_sam(0), new_sam(0)
    for model in (first, second):
        whiten_details(model, pixels, 1.0, seed=3)
    weights = [model.vision_encoder.patch_embed.projection.weight for model in (first, second)]
    untouched = new_sam(0).vision_encoder.patch_embed.projection.weight
    assert torch.equal(*weights) and not torch.equal(weights[0], untouched)
