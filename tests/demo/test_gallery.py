"""Scenes for pretraining, turned and mirrored."""

import numpy as np
import pytest

from satlisa.data.synthetic.painter import draw_scene
from satlisa.data.synthetic.plan import Plan
from satlisa.data.synthetic.rows import scene_seeds
from satlisa.demo.gallery import CROWDED, Exhibit, ScenePool, open_crowded
from tests.helpers.scenes import drawn, unseen_scenes


@pytest.mark.parametrize("number", range(8))
def test_a_turned_scene_carries_its_objects_along(number):
    seed = next(s for s in scene_seeds("pretrain", 50) if len(Plan(s).objects) >= 3)
    size = 500  # of the canvas: 1 pixel for 2 units, so that turning moves whole pixels
    scene = Exhibit(np.zeros((8, 8, 3), np.uint8), Plan(seed))
    before = np.any([drawn(thing, size) for thing in scene.plan.objects], axis=0)
    pixels = np.repeat(before[..., None], 3, axis=2).astype(np.uint8)
    turned = Exhibit(pixels, scene.plan).turned(number)
    after = np.any([drawn(thing, size) for thing in turned.plan.objects], axis=0)
    expected = turned.pixels[..., 0].astype(bool)
    assert (after & expected).sum() / (after | expected).sum() > 0.97  # edges may round the other way
    places = [(thing.box[1], thing.box[0]) for thing in turned.plan.objects]
    assert places == sorted(places)


def test_eight_turns_are_eight_views():
    exhibit = Exhibit(np.arange(12, dtype=np.uint8).reshape(2, 2, 3), Plan(scene_seeds("pretrain", 1)[0]))
    assert len({exhibit.turned(number).pixels.tobytes() for number in range(8)}) == 8


def labels_of(scene: Exhibit) -> set[str]:
    return {thing.label for thing in scene.plan.objects}


def test_half_of_the_drawn_scenes_have_both_kinds():
    scenes = unseen_scenes(40)
    assert 0 < sum(len(labels_of(scene)) > 1 for scene in scenes) < 10  # by chance, they would be few
    drawn = ScenePool(scenes).draw(301, np.random.default_rng(0))
    assert len(drawn) == 301 and all(labels_of(scene) for scene in drawn)
    assert all(len(labels_of(scene)) == 2 for scene in drawn[151:])
    assert 0 < sum(len(labels_of(scene)) == 2 for scene in drawn[:151]) < 60  # the other half is drawn from all
    assert len({scene.pixels.tobytes() for scene in drawn}) > 100  # turned


def test_a_pool_without_such_scenes_draws_from_all():
    plain = [scene for scene in unseen_scenes(40) if len(labels_of(scene)) == 1]
    drawn = ScenePool(plain).draw(8, np.random.default_rng(0))
    assert len(drawn) == 8 and all(len(labels_of(scene)) == 1 for scene in drawn)


def test_crowded_scenes_are_others_with_many_objects():
    first = scene_seeds("pretrain", 20)
    scenes = open_crowded("pretrain", 3, 20, 1)
    seeds = [scene.plan.seed for scene in scenes]
    assert all(len(scene.plan.objects) >= CROWDED for scene in scenes)
    assert len(set(seeds) - set(first)) == 3
    between = set(range(first[-1] + 1, seeds[-1])) - set(seeds)
    assert all(len(Plan(seed).objects) < CROWDED for seed in between)  # none is left out
    assert np.array_equal(scenes[0].pixels, np.array(draw_scene(seeds[0])))
