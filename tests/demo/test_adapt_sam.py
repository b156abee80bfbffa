"""The third stage of SAM's pretraining: a few steps of it."""

import numpy as np
import torch

from satlisa.demo import adapt_sam as stage
from satlisa.demo.adapt_sam import Names, adapt_sam, predict
from satlisa.demo.collages import draw_collage
from satlisa.demo.sam_lessons import KINDS, SIDE, as_picture, make_batch
from satlisa.demo.tensors import sam_pixels
from satlisa.demo.tiny_models import new_sam
from tests.helpers.scenes import unseen_scenes


def test_every_part_of_sam_and_the_names_are_trained(monkeypatch):
    monkeypatch.setattr(stage, "BATCH_SIZE", 6)
    model = new_sam(0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    exhibits = [scene for scene in unseen_scenes(8) if scene.plan.objects]
    names = adapt_sam(model, exhibits, [draw_collage(1)], [], 2, 0)
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)}
    for part in ("vision_encoder", "prompt_encoder", "mask_decoder"):
        assert any(name.startswith(part) for name in changed)
    fresh = Names(64)
    assert all(a.shape == b.shape for a, b in zip(names.parameters(), fresh.parameters(), strict=True))


@torch.no_grad()
def test_every_kind_of_prompt_has_logits_scores_and_masks():
    scenes = [scene for scene in unseen_scenes(8) if scene.plan.objects][:2]
    model, batch = new_sam(0), make_batch([as_picture(scene) for scene in scenes], 0, np.random.default_rng(0))
    found = predict(model, Names(64), batch, model.vision_encoder(sam_pixels(batch.pixels))[0])
    assert set(found) == set(KINDS)
    for logits, scores, masks in found.values():
        assert logits.shape == masks.shape == (2, 1, SIDE // 2, SIDE // 2)
        assert scores.shape == logits.shape[:2] and logits.isfinite().all()
