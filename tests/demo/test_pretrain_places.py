"""The stage of the VLM's pretraining that reads places out of the tower."""

import torch

from satlisa.demo import pretrain_places
from satlisa.demo.gallery import Exhibit
from satlisa.demo.pretrain_places import train_places
from satlisa.demo.pretrain_tower import DenseHead
from satlisa.demo.tiny_models import make_processor, new_vlm, train_tokenizer
from tests.helpers.scenes import PHRASES, unseen_scenes


def test_text_side_tower_and_head_are_trained(monkeypatch):
    monkeypatch.setattr(pretrain_places, "PLACE_LESSONS", 1)
    monkeypatch.setattr(pretrain_places, "OTHER_LESSONS", 1)
    processor = make_processor(train_tokenizer(PHRASES))
    model, head = new_vlm(processor, 0), DenseHead(192)
    exhibits = [Exhibit(x.pixels, x.plan) for x in unseen_scenes(2)]
    parameters = [*model.model.visual.parameters(), *model.model.language_model.parameters(), *head.parameters()]
    before = [parameter.detach().clone() for parameter in parameters]
    train_places(model, head, processor, exhibits, 1, 0)
    changed = [not torch.equal(*pair) for pair in zip(before, parameters, strict=True)]
    assert sum(changed) > 0.5 * len(changed) and changed[0] and changed[-1]
    assert not model.model.visual._forward_hooks
