"""Which split an image goes to: as the format says, or by shares, all images of a scene together."""

import hashlib
import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from satlisa.convert.scene import Scene
from satlisa.errors import SatlisaError

SPLITS = ("train", "validation", "test")
_SPELLINGS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_SPELLINGS |= dict.fromkeys(("val", "valid", "validation", "dev"), "validation")
# What the programs that cut scenes append to a scene's name: __1__0___824, _x10_y20, _r3_c4, _tile_12, _512_1024.
_WINDOW = re.compile(
    r"(?:__\d+(?:\.\d+)?__-?\d+___-?\d+|[_-]x\d+[_-]y\d+|[_-]r(?:ow)?\d+[_-]c(?:ol)?\d+"
    r"|[_-](?:tile|patch|chip|crop|window)[_-]?\d+(?:[_-]\d+)*|[_-]\d+[_-]\d+)$",
    re.IGNORECASE,
)
_FEWEST_SCENES = 10  # fewer names without such an ending: it is a counter, not a window


@dataclass(frozen=True)
class Splitting:
    """How images are split.

    Attributes:
        shares: of the images that train, validation and test get; (): as the format says, else `DEFAULT_SHARES`.
        seed: decides which.
        group: a regular expression whose first group, or else the match, names an image's scene.
    """

    shares: tuple[float, ...] = ()
    seed: int = 0
    group: str = ""


DEFAULT_SHARES = (0.9, 0.05, 0.05)


def parse_shares(text: str) -> tuple[float, ...]:
    """The shares in "0.9,0.05,0.05".

    Raises:
        SatlisaError: not one to three shares that add up to 1.
    """
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if not 1 <= len(shares) <= 3 or not all(0 <= share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        found = f", which add up to {sum(shares):g}" if shares else ""
        raise SatlisaError(
            f"--split: expected the shares of train, validation and test, which add up to 1; found {text}{found}"
        )
    return shares


def split_named(name: str) -> str:
    """The split that a file's or a folder's name contains: "instances_val2017", "valid"; "" for none."""
    words = re.findall(r"[a-z]+", name.casefold())
    found = {_SPELLINGS[word] for word in words if word in _SPELLINGS}
    return found.pop() if len(found) == 1 else ""


def choose_splits(scenes: Sequence[Scene], how: Splitting) -> list[Scene]:
    """The scenes with their splits.

    Raises:
        SatlisaError: two images of one name, or a split that some images have and others have not.
    """
    names: set[str] = set()
    for scene in scenes:
        if scene.name in names:
            raise SatlisaError(f"{scene.name}: two images have this name; give each image one entry")
        names.add(scene.name)
    with_split = [scene for scene in scenes if scene.split]
    if with_split and not how.shares:
        if len(with_split) < len(scenes):
            other = next(scene for scene in scenes if not scene.split)
            raise SatlisaError(f"{other.name}: no split, while {with_split[0].name} has one; name all, or give --split")
        return list(scenes)
    groups = _groups(scenes, how.group)
    chosen = _deal(groups, how.shares or DEFAULT_SHARES, how.seed)
    return [replace(scene, split=chosen[scene.name]) for scene in scenes]


def _deal(groups: Mapping[str, Sequence[str]], shares: Sequence[float], seed: int) -> dict[str, str]:
    """The split of each name: groups in random order go to the split that lacks most of its share.

    A split with a share gets a group as long as there are enough.
    """
    order = sorted(groups)
    random.Random(f"{seed} split").shuffle(order)
    total = sum(map(len, groups.values()))
    lacking = {split: share * total for split, share in zip(SPLITS, shares, strict=False) if share}
    waiting = sorted(lacking, key=lambda split: -lacking[split])  # those without any group
    chosen: dict[str, str] = {}
    for place, group in enumerate(order):
        must = len(waiting) >= len(order) - place
        split = waiting[0] if must and waiting else max(lacking, key=lambda name: lacking[name])
        waiting = [name for name in waiting if name != split]
        lacking[split] -= len(groups[group])
        chosen |= dict.fromkeys(groups[group], split)
    return chosen


def _groups(scenes: Sequence[Scene], pattern: str) -> dict[str, list[str]]:
    """The names of each group; images of equal bytes are in one group."""
    own = [scene.group or _scene_name(scene.name, pattern) for scene in scenes]
    if not pattern and len(set(own)) < min(_FEWEST_SCENES, len(own)):
        own = [scene.group or scene.name for scene in scenes]
    joined: dict[str, str] = {}

    def head(group: str) -> str:
        while joined.get(group, group) != group:
            group = joined[group]
        return group

    seen: dict[str, str] = {}
    for scene, group in zip(scenes, own, strict=True):
        if callable(scene.picture.data):  # made when it is written; windows of a raster do not repeat
            continue
        other = seen.setdefault(hashlib.blake2b(scene.picture.content()).hexdigest(), group)
        joined[head(group)] = head(other)
    groups: dict[str, list[str]] = defaultdict(list)
    for scene, group in zip(scenes, own, strict=True):
        groups[head(group)].append(scene.name)
    return groups


def _scene_name(name: str, pattern: str) -> str:
    if not pattern:
        return _WINDOW.sub("", re.sub(r"\.\w+$", "", name))
    found = re.search(pattern, name)
    if not found:
        raise SatlisaError(f"--group: {pattern!r} does not match {name}; it has to match every image's name")
    return found[1] if found.re.groups else found[0]
