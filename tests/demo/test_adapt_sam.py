"""The third stage of SAM's pretraining: a few steps of it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from satlisa.demo import adapt_sam as stage
from satlisa.demo.adapt_sam import Aids, adapt_sam, dense_loss, predict
from satlisa.demo.collages import SIDE, draw_collage
from satlisa.demo.place_features import LABELS
from satlisa.demo.sam_lessons import KINDS, Picture, as_picture, make_batch
from satlisa.demo.tensors import sam_pixels
from satlisa.demo.tiny_models import new_sam
from tests.helpers.scenes import unseen_scenes


def test_every_part_of_sam_and_the_names_are_trained(monkeypatch):
    monkeypatch.setattr(stage, "BATCH_SIZE", 6)
    monkeypatch.setattr(stage, "_WHITENED_BATCHES", 1)
    model = new_sam(0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    exhibits = [scene for scene in unseen_scenes(8) if scene.plan.objects]
    aids = adapt_sam(model, exhibits, [draw_collage(1)], [], 2, 0)
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)}
    for part in ("vision_encoder", "prompt_encoder", "mask_decoder"):
        assert any(name.startswith(part) for name in changed)
    torch.manual_seed(0)
    fresh = dict(Aids(64).named_parameters())
    assert not [name for name, parameter in aids.named_parameters() if torch.equal(parameter, fresh[name])]


@torch.no_grad()
def test_every_kind_of_prompt_has_logits_scores_and_masks():
    scenes = [scene for scene in unseen_scenes(8) if scene.plan.objects][:2]
    model, batch = new_sam(0), make_batch([as_picture(scene) for scene in scenes], 0, np.random.default_rng(0))
    found = predict(model, Aids(64), batch, model.vision_encoder(sam_pixels(batch.pixels))[0])
    assert set(found) == set(KINDS)
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
