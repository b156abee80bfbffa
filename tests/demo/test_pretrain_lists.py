"""The last stage of the VLM's pretraining."""

import pytest
import torch

from satlisa.demo import pretrain_lists, pretrain_vlm
from satlisa.demo.fit import Loop
from satlisa.demo.lessons import Lessons, Writer
from satlisa.demo.place_features import place_features
from satlisa.demo.pretrain_lists import fit_places, train_lists
from satlisa.demo.pretrain_vlm import Reader
from satlisa.demo.tiny_models import make_processor, new_vlm, train_tokenizer
from tests.helpers.scenes import PHRASES, unseen_scenes


@pytest.fixture(scope="module")
def scenes():
    return [scene for scene in unseen_scenes(12) if len(scene.plan.objects) > 1][:3]


@pytest.fixture
def writer():
    return Writer(make_processor(train_tokenizer(PHRASES)))


def test_the_language_model_is_trained_and_the_tower_is_not(writer, scenes, monkeypatch):
    monkeypatch.setattr(pretrain_lists, "BATCH_SIZE", 4)
    monkeypatch.setattr(pretrain_lists, "_FITTED_BATCHES", 1)
    model = new_vlm(writer.processor, 0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    train_lists(model, writer, scenes, scenes, [], 2, 0, Loop())
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert not any(".visual." in name for name in changed)
    assert len(changed) > 0.8 * sum(".language_model." in name for name in before)
    assert all(parameter.requires_grad for parameter in model.parameters())


@torch.no_grad()
def test_the_layer_of_places_is_fitted(writer, scenes, monkeypatch):
    """Better than the mean place, on what it was fitted to; states of random weights tell some of it."""
    monkeypatch.setattr(pretrain_vlm, "_GROUPS", 1)
    reader = Reader(new_vlm(writer.processor, 0), writer)
    lessons = Lessons(writer, scenes, [], 2, 8, seed=0, single_from=0, list_share=1.0)
    layer = fit_places(reader, lessons)
    batches = [lessons[0], lessons[1]]
    wanted = torch.cat([place_features(batch.marker_boxes, batch.marker_labels) for batch in batches])
    found = torch.cat([layer(reader(batch)[1]) for batch in batches])
    assert (found - wanted).square().mean() < 0.8 * wanted.var(dim=0).mean()
