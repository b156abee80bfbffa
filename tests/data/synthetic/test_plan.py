"""The plan of a synthetic scene: classes, counts, floods."""

from collections import Counter

from satlisa.data.synthetic.plan import SCENE_CLASSES, Plan


def test_every_class_turns_up_about_equally_often(plans: list[Plan]) -> None:
    counts = Counter(plan.scene_class for plan in plans)
    assert set(counts) == set(SCENE_CLASSES)
    assert min(counts.values()) >= 10


def test_counts_stay_moderate(plans: list[Plan]) -> None:
    for plan in plans:
        labels = Counter(thing.label for thing in plan.objects)
        assert labels["building"] <= 8 and labels["plane"] <= 4
        assert not labels["plane"] or plan.scene_class == "Airport"
    assert any(not plan.objects for plan in plans)


def test_flooded_buildings_stand_in_the_flood_and_the_others_do_not(plans: list[Plan]) -> None:
    seen: Counter[bool] = Counter()
    for plan in plans:
        for structure in plan.structures:
            x, y = structure.outline.T.astype(int)
            if plan.flood is None:
                assert not structure.flooded
            else:
                assert (plan.flood[y, x] > 0).all() == structure.flooded == (plan.flood[y, x] > 0).any()
                seen[structure.flooded] += 1
    assert seen[True] > 20 and seen[False] > 20
