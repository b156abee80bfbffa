"""The synthetic scenes and their rows: the same for a seed, unambiguous, and answered rightly."""

import numpy as np
from PIL import Image

from satlisa.data.synthetic.painter import draw_scene, paint
from satlisa.data.synthetic.plan import Plan
from tests.helpers.scenes import filled


def test_a_seed_always_gives_the_same_scene() -> None:
    first, again, other = draw_scene(7), draw_scene(7), draw_scene(8)
    assert first.tobytes() == again.tobytes() != other.tobytes()
    assert first.mode == "RGB" and first.size == (256, 256)
    assert Plan(7).objects == Plan(7).objects and Plan(7).scene_class == Plan(7).scene_class


def test_the_size_changes_the_picture_and_not_the_scene() -> None:
    large, small = draw_scene(3), draw_scene(3, size=128)
    assert small.size == (128, 128)
    halved = np.asarray(large.resize((128, 128), Image.Resampling.BOX), float)
    assert np.abs(halved - np.asarray(small, float)).mean() < 8


def test_an_object_is_painted_where_its_polygon_says() -> None:
    plan = next(p for p in map(Plan, range(100)) if p.scene_class == "Airport" and p.flood is None)
    pixels = np.asarray(paint(plan).convert("L"), float)
    planes = [filled(thing.polygon) for thing in plan.objects if thing.label == "plane"]
    assert planes
    for mask in planes:
        small = np.asarray(Image.fromarray(mask).resize((256, 256)))
        assert pixels[small].mean() > 175  # white bodies ...
        left, right = np.flatnonzero(small.any(0))[[0, -1]]
        top, bottom = np.flatnonzero(small.any(1))[[0, -1]]
        around = ~small[top : bottom + 1, left : right + 1]
        assert pixels[top : bottom + 1, left : right + 1][around].mean() < 165  # ... on a darker apron
