"""Whitening of SAM's patch embedding."""

import torch
import torch.nn.functional as F

from satlisa.demo.tiny_models import new_sam
from satlisa.demo.whitening import whiten


def pictures() -> torch.Tensor:
    """Mostly brightness, with details a twentieth as strong."""
    torch.manual_seed(1)
    noise = F.interpolate(torch.randn(6, 3, 128, 128), (256, 256), mode="bilinear")
    return F.interpolate(torch.randn(6, 3, 8, 8), (256, 256), mode="bilinear") * 2 + 0.1 * noise


@torch.no_grad()
def outputs(model, pixels: torch.Tensor) -> torch.Tensor:
    """The patch embedding's outputs (N, 96) at the half-overlapping patches that the covariance is taken from."""
    projection = model.vision_encoder.patch_embed.projection
    return F.conv2d(pixels, projection.weight, projection.bias, stride=4).flatten(2).transpose(1, 2).flatten(0, 1)


def test_components_of_patches_have_the_variance_that_the_floor_leaves():
    model, pixels = new_sam(0), pictures()
    untrained = torch.linalg.eigvalsh(torch.cov(outputs(model, pixels).T))
    whiten(model, pixels, seed=0)
    after = outputs(model, pixels)
    found = torch.linalg.eigvalsh(torch.cov(after.T))
    patches = F.unfold(pixels, 8, stride=4).transpose(1, 2).flatten(0, 1)
    variances = torch.linalg.eigvalsh(torch.cov(patches.T))
    expected = variances / (variances + 5e-5 * variances[-1])
    assert torch.allclose(found, expected[-96:], atol=0.02) and after.mean(0).abs().max() < 0.02
    # Three colours are nearly all that an untrained embedding passes on.
    assert untrained[-3:].sum() / untrained.sum() > 0.9 and found[-3:].sum() / found.sum() < 0.15


def test_the_seed_chooses_the_mixture():
    pixels, weights = pictures(), []
    for seed in (3, 3, 4):
        model = new_sam(0)
        whiten(model, pixels, seed)
        weights.append(model.vision_encoder.patch_embed.projection.weight)
    assert torch.equal(weights[0], weights[1]) and not torch.allclose(weights[0], weights[2], atol=0.1)
