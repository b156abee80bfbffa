"""What SAM is asked in pretraining."""

import numpy as np
import pytest
import torch

from satlisa.data.synthetic.plan import Plan
from satlisa.demo.chips import Chip
from satlisa.demo.collages import SIDE, Collage, draw_collage
from satlisa.demo.place_features import LABELS
from satlisa.demo.pretrain_sam import draw_mask
from satlisa.demo.sam_lessons import UNNAMED, Picture, SamLessons, as_picture, make_batch
from tests.helpers.scenes import unseen_scenes


@pytest.fixture(scope="module")
def scene():
    return next(scene for scene in unseen_scenes(20) if len(scene.plan.objects) > 2)


def test_a_scene_as_a_picture_holds_its_objects(scene):
    picture = as_picture(scene)
    for number, thing in enumerate(scene.plan.objects, start=1):
        mask = picture.collage.shapes == number
        assert mask.sum() > 0.95 * draw_mask([thing], SIDE).sum()
        assert {LABELS[picture.name_of(int(s))] for s in np.unique(picture.collage.surfaces[mask])} == {thing.label}
    assert picture.name_of(0) == UNNAMED == Picture(picture.collage).name_of(1)


def test_prompts_lie_on_their_masks(scene):
    batch = make_batch([Picture(draw_collage(1)), as_picture(scene)], 1, np.random.default_rng(0))
    assert batch.pixels.shape == (2, SIDE, SIDE, 3)
    for kind, count in {"box": 2, "point": 2, "name": 1}.items():
        masks = getattr(batch, f"{kind}_masks")
        assert masks.dtype == torch.bool and masks.shape == (count, 1, SIDE // 2, SIDE // 2)
        assert masks.flatten(1).any(-1).all()
    for picture in range(2):
        rows, columns = np.nonzero(batch.box_masks[picture, 0].numpy())
        found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) * 2
        assert np.abs(batch.boxes[picture, 0].numpy() - found).max() <= 4
        (x, y) = (batch.points[picture, 0, 0] / 2).long()
        near = torch.nn.functional.max_pool2d(batch.point_masks[picture].float(), 3, 1, 1)[0]  # halving loses edges
        assert near[y, x]
    label = LABELS[int(batch.names[0, 0])]
    of_label = draw_mask([thing for thing in scene.plan.objects if thing.label == label], SIDE // 2)
    assert (batch.name_masks[0, 0].numpy() == of_label).mean() > 0.98


def test_dense_targets_are_the_kinds_and_where_shapes_meet(scene):
    batch = make_batch([Picture(draw_collage(1)), as_picture(scene)], 1, np.random.default_rng(0))
    for index, label in enumerate(LABELS):
        of_label = draw_mask([thing for thing in scene.plan.objects if thing.label == label], SIDE // 2)
        assert (batch.kinds[0, index].numpy() == of_label).mean() > 0.98
    shapes = np.zeros((SIDE, SIDE), np.uint8)
    shapes[40:80, 100:160] = 1
    square = Collage(np.zeros((SIDE, SIDE, 3), np.uint8), shapes, shapes)
    edges = make_batch([Picture(square, (UNNAMED, 0))], 0, np.random.default_rng(0)).edges[0, 0].numpy()
    inner, outer = np.zeros_like(edges), np.zeros_like(edges)
    inner[21:39, 51:79], outer[19:41, 49:81] = True, True
    outer[[19, 19, 40, 40], [49, 80, 49, 80]] = False  # corners touch diagonally alone
    assert np.array_equal(edges, outer & ~inner)


def test_batches_are_collages_scenes_and_chips(scene):
    shapes = np.zeros((300, 300), np.uint8)
    shapes[50:250, 50:250] = 1
    lessons = SamLessons([scene], [draw_collage(1)], [Chip(scene.image.resize((300, 300)), shapes)], 3, 6, seed=0)
    batch = lessons[1]
    assert len(batch.pixels) == 6 and len(batch.names) == 5 and (batch.names[2:] == LABELS.index("building")).all()
    assert len(batch.kinds) == 5 and len(batch.edges) == 3 and not batch.kinds[2:, LABELS.index("plane")].any()
    assert all(torch.equal(getattr(batch, n), getattr(lessons[1], n)) for n in ("pixels", "boxes", "name_masks"))
    assert not torch.equal(batch.pixels, lessons[2].pixels)
    bare = SamLessons([scene], [draw_collage(1)], [], 3, 6, seed=0)[0]
    assert len(bare.pixels) == 6 and len(bare.names) == 5


def test_scenes_without_objects_are_left_out():
    empty = next(scene for scene in unseen_scenes(40) if not Plan(scene.plan.seed).objects)
    full = next(scene for scene in unseen_scenes(40) if scene.plan.objects)
    assert SamLessons([empty, full], [draw_collage(1)], [], 1, 6, seed=0)[0].names.shape == (5, 1)
