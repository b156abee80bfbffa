"""The dense target of the vision tower, and its head."""

import numpy as np
import pytest
import torch

from satlisa.data.synthetic.plan import Plan, Road, SceneObject
from satlisa.data.synthetic.terrain import SIDE
from satlisa.demo import pretrain_tower
from satlisa.demo.boxes import box_recall
from satlisa.demo.fit import Loop
from satlisa.demo.gallery import Exhibit, turn_array
from satlisa.demo.pretrain_tower import DenseHead, dense_target, train_tower, write_positions
from satlisa.demo.tiny_models import make_processor, new_vlm, train_tokenizer
from tests.helpers.scenes import PHRASES, unseen_scenes


def scene(*objects, roads=()):
    plan = Plan(0)
    plan.objects, plan.roads = objects, [*roads]
    return plan


def thing(label, left, top, right, bottom):
    return SceneObject(label, ((left, top), (right, top), (right, bottom), (left, bottom)))


def test_each_object_is_told_at_its_centre():
    first, second = thing("building", 250, 0, 350, 100), thing("plane", 600, 500, 800, 700)
    target = dense_target([scene(first, second), scene()], side=4)
    assert target.classes.shape == (2, 16) and not target.classes[1].any()
    assert target.classes[0].nonzero()[:, 0].tolist() == target.held.tolist() == [1, 10]
    assert target.classes[0, [1, 10]].tolist() == [1, 2]
    assert target.boxes.tolist() == pytest.approx(torch.tensor([first.box, second.box]) / 1000)
    assert target.tens.tolist() == [[25, 0, 35, 10], [60, 50, 80, 70]]
    assert target.numbers.tolist() == [0, 1]
    # the middles of these cells are (0.375, 0.125) and (0.625, 0.625), a cell is 0.25
    assert target.offsets[0].tolist() == pytest.approx([-0.5, -0.5, -0.1, -0.1], abs=1e-6)
    assert target.offsets[1].tolist() == pytest.approx([-0.1, -0.5, 0.7, 0.3], abs=1e-6)


def test_an_object_at_the_edge_is_in_the_last_cell():
    assert dense_target([scene(thing("plane", 999, 999, 1000, 1000))], side=4).held.tolist() == [15]


def test_a_head_that_fits_finds_the_boxes():
    """Trained on features that differ from cell to cell: what it finds is what the target says."""
    torch.manual_seed(0)
    exhibit = unseen_scenes(1)[0]
    target = dense_target([exhibit.plan], side=8)
    assert len(target.held) == len(exhibit.plan.objects)
    features, head = torch.randn(1, 64, 96), DenseHead(96)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    before = head.loss(features, target).item()
    for _ in range(400):
        optimizer.zero_grad()
        head.loss(features, target).backward()
        optimizer.step()
    assert head.loss(features, target).item() < 0.1 * before
    assert box_recall(head.find(features), [exhibit]) == 1


def test_scenes_without_objects_have_a_loss():
    loss = DenseHead(8).loss(torch.randn(2, 16, 8), dense_target([scene(), scene()], side=4))
    assert loss.isfinite()


def test_unknown_pictures_have_no_part_in_the_loss():
    plan, features, head = unseen_scenes(1)[0].plan, torch.randn(2, 64, 8), DenseHead(8)
    alone = head.loss(features[:1], dense_target([plan], side=8))
    assert torch.allclose(head.loss(features, dense_target([plan, None], side=8)), alone)


def test_roads_are_told_where_they_are_and_where_they_leave():
    across = Road(np.array([[-SIDE, 0.4 * SIDE], [2 * SIDE, 0.4 * SIDE]]), 10, "paved")
    runway = Road(np.array([[0.1 * SIDE, -SIDE], [0.1 * SIDE, 2 * SIDE]]), 30, "runway")
    roads = dense_target([scene(roads=[across, runway])], side=4).roads[0].view(4, 4, 2)
    assert roads[..., 0].nonzero().tolist() == [[1, 0], [1, 1], [1, 2], [1, 3]]
    assert roads[..., 1].nonzero().tolist() == [[1, 0], [1, 3]]


@pytest.mark.parametrize("number", range(8))
def test_turned_roads_lie_on_the_turned_picture(number):
    plan = next(x.plan for x in unseen_scenes(30) if x.plan.num_roads)
    before = dense_target([plan], side=8).roads[0].view(8, 8, 2).numpy()
    after = dense_target([Exhibit(np.zeros((8, 8, 3), np.uint8), plan).turned(number).plan], side=8).roads[0]
    agree = after.view(8, 8, 2).numpy() == turn_array(before, number)
    assert agree.mean() > 0.95  # a border may fall on the next cell


def test_only_the_tower_is_trained(monkeypatch):
    monkeypatch.setattr(pretrain_tower, "BATCH_SIZE", 2)
    processor = make_processor(train_tokenizer(PHRASES))
    model, exhibits = new_vlm(processor, 0), unseen_scenes(2)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    train_tower(model, DenseHead(192), exhibits, 1, 0, Loop())
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)}
    assert changed and all(name.startswith("model.visual.") for name in changed)


def test_positions_tell_every_patch():
    tower = new_vlm(make_processor(train_tokenizer(PHRASES)), 0).model.visual
    write_positions(tower)
    written = tower.pos_embed.weight.detach()
    assert written.shape == (256, 128) and written.pow(2).mean().sqrt() == pytest.approx(1, abs=0.2)
    assert torch.pdist(written).min() > 0.5
