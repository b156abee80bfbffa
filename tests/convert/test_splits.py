"""Splits: shares, scenes, equal files, names."""

from collections import Counter
from pathlib import Path

import pytest

from satlisa.convert.picture import Picture
from satlisa.convert.scene import Scene
from satlisa.convert.splits import Splitting, choose_splits, parse_shares, split_named
from satlisa.errors import SatlisaError


def scene(name: str, data: bytes = b"", **more: str) -> Scene:
    return Scene(name, Picture(Path(name), (8, 8), 1, data or name.encode()), **more)


def test_shares_are_kept_and_scenes_stay_together() -> None:
    scenes = [scene(f"s{number}_x{x}_y0.png") for number in range(40) for x in range(5)]
    found = choose_splits(scenes, Splitting((0.8, 0.1, 0.1), seed=3))
    assert Counter(item.split for item in found) == {"train": 160, "validation": 20, "test": 20}
    by_scene = {(item.name.split("_")[0], item.split) for item in found}
    assert len(by_scene) == 40
    assert choose_splits(scenes, Splitting((0.8, 0.1, 0.1), seed=3)) == found
    assert choose_splits(scenes, Splitting((0.8, 0.1, 0.1), seed=4)) != found


def test_counters_are_no_windows_and_group_decides() -> None:
    scenes = [scene(f"img_2020_{number}.png") for number in range(50)]
    assert Counter(item.split for item in choose_splits(scenes, Splitting()))["validation"] in (2, 3)
    pairs = [scene(f"{number}-{side}.png") for number in range(30) for side in "ab"]
    found = choose_splits(pairs, Splitting((0.5, 0.5), group=r"^(\d+)-"))
    assert len({(item.name.split("-")[0], item.split) for item in found}) == 30
    with pytest.raises(SatlisaError, match="does not match"):
        choose_splits(scenes, Splitting(group="^x"))


def test_small_sets_have_every_split() -> None:
    found = choose_splits([scene(name) for name in "abc"], Splitting())
    assert {item.split for item in found} == {"train", "validation", "test"}


def test_equal_files_are_in_one_split() -> None:
    scenes = [scene(f"{number}.png", b"same" if number % 2 else b"") for number in range(40)]
    found = choose_splits(scenes, Splitting((0.5, 0.5)))
    assert len({item.split for item in found if item.picture.data == b"same"}) == 1


def test_the_formats_splits_stay_unless_shares_are_given() -> None:
    scenes = [scene("a", split="test"), scene("b", split="train")]
    assert [item.split for item in choose_splits(scenes, Splitting())] == ["test", "train"]
    assert {item.split for item in choose_splits(scenes, Splitting((1.0,)))} == {"train"}
    with pytest.raises(SatlisaError, match="c: no split"):
        choose_splits([*scenes, scene("c")], Splitting())


def test_a_name_twice_is_an_error() -> None:
    with pytest.raises(SatlisaError, match="two images have this name"):
        choose_splits([scene("a"), scene("a")], Splitting())


@pytest.mark.parametrize("text", ["0.9,0.2", "1,1", "-0.5,1.5", "a", "", "0.2,0.2,0.2,0.4", "nan"])
def test_shares_add_up_to_1(text: str) -> None:
    with pytest.raises(SatlisaError, match="--split"):
        parse_shares(text)


def test_names_of_splits() -> None:
    names = ("instances_val2017", "train", "Validation", "valid", "testset", "training_validation", "contest")
    assert [split_named(name) for name in names] == ["validation", "train", "validation", "validation", "", "", ""]
