"""The second stage of SAM's pretraining: a few steps of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from satlisa.demo import adapt_sam as stage
from satlisa.demo.adapt_sam import Aids, adapt_sam, dense_loss, predict, rare_pixel_weights, rebuild_loss
from satlisa.demo.collages import SIDE, draw_collage
from satlisa.demo.fit import Loop
from satlisa.demo.place_features import LABELS
from satlisa.demo.pretrain_sam import prompt_loss
from satlisa.demo.sam_lessons import Picture, as_picture, make_batch
from satlisa.demo.tensors import sam_pixels
from satlisa.demo.tiny_models import new_sam
from tests.helpers.scenes import unseen_scenes


def test_every_part_of_sam_and_the_names_are_trained(monkeypatch):
    monkeypatch.setattr(stage, "BATCH_SIZE", 6)
    model = new_sam(0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    exhibits = [scene for scene in unseen_scenes(8) if scene.plan.objects]
    aids = adapt_sam(model, exhibits, [draw_collage(1)], [], 2, 0, Loop())
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)}
    for part in ("vision_encoder", "prompt_encoder", "mask_decoder"):
        assert any(name.startswith(part) for name in changed)
    torch.manual_seed(0)
    fresh = dict(Aids(64).named_parameters())
    assert not [name for name, parameter in aids.named_parameters() if torch.equal(parameter, fresh[name])]


def test_a_place_is_a_box_from_minus_one_to_one_and_is_learnt():
    scenes = [scene for scene in unseen_scenes(8) if scene.plan.objects][:1]
    model, aids, seen = new_sam(0), Aids(64), []
    batch = make_batch([as_picture(scene) for scene in scenes], 0, np.random.default_rng(0))
    batch = replace(batch, boxes=torch.tensor([[[0.0, 64, 128, 256]]]))
    aids.places.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    logits, _, _ = predict(model, aids, batch, model.vision_encoder(sam_pixels(batch.pixels))[0])["place"]
    assert seen[0].tolist() == [[[-1, -0.5, 0, 1]]]
    logits.square().mean().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in aids.places.parameters())


@torch.no_grad()
def test_every_kind_of_prompt_has_logits_scores_and_masks():
    scenes = [scene for scene in unseen_scenes(8) if scene.plan.objects][:2]
    model, batch = new_sam(0), make_batch([as_picture(scene) for scene in scenes], 0, np.random.default_rng(0))
    found = predict(model, Aids(64), batch, model.vision_encoder(sam_pixels(batch.pixels))[0])
    assert set(found) == {"box", "point", "name", "place"} and found["place"][2] is batch.box_masks
    for logits, scores, masks in found.values():
        assert logits.shape == masks.shape == (2, 1, SIDE // 2, SIDE // 2)
        assert scores.shape == logits.shape[:2] and logits.isfinite().all()


@pytest.mark.parametrize("real", [0, 1])
def test_dense_loss_wants_kinds_and_edges(real):
    scenes = [as_picture(scene) for scene in unseen_scenes(8) if scene.plan.objects][:2]
    batch = make_batch([Picture(draw_collage(1)), *scenes], 1, np.random.default_rng(0), real=real)
    assert len(batch.kinds) == 2 and len(batch.edges) == 3 - real
    cells = torch.zeros(3, len(LABELS) + 1, SIDE // 2, SIDE // 2)
    cells[1:, :-1], cells[: 3 - real, -1:] = batch.kinds.float(), batch.edges.float()
    right = F.pixel_unshuffle(40 * (cells - 0.5), 4)
    assert dense_loss(right, batch) < 0.01
    assert dense_loss(right.flip(1), batch) > 1 and dense_loss(torch.full_like(right, -20), batch) > 1
    anything = right.clone()
    anything.view(3, len(LABELS) + 1, 16, -1)[0, :-1] *= -1  # a collage's kinds are not known
    assert dense_loss(anything, batch) < 0.01


def test_losses_want_what_they_should():
    targets = torch.zeros(1, 1, 32, 32)
    targets[..., 10:14, 10:14] = 1
    scores = torch.ones(1, 1)
    weights = rare_pixel_weights(targets)
    right = prompt_loss(20 * (targets - 0.5), targets, scores, weights)
    empty = prompt_loss(targets - 10, targets, scores, weights)
    assert right < 0.01 and empty > 1
    pixels = torch.randn(1, 3, 64, 64)
    halved = F.avg_pool2d(pixels, 2)
    perfect = F.pixel_unshuffle(halved, 4)
    assert rebuild_loss(perfect, pixels) == 0 and perfect.shape == (1, 48, 8, 8)
    assert rebuild_loss(perfect.roll(1, dims=3), pixels) > 0.1
