"""What hypothesis makes up for the properties: polygons, chats, rows and settings, arbitrary or nearly right."""

import json
from typing import Any

from hypothesis import strategies as st

from tests.helpers.row_cases import PICTURE, SQUARE, chat

PIECES = (
    *("<SEG>", "[SEG]", "<|im_end|>", "<|image_pad|>", "<|vision_start|>", "<think>", "</think>", "<tool_call>"),
    *(
        "<image>",
        "<ima",
        "ge>",
        "<|im_",
        "end|>",
        "<",
        "|>",
        " ",
        "\n",
        "\r\n",
        "\t",
        "\0",
        "\ufeff",
        "\u200b",
        "\u202e",
    ),
    *(
        "\ud800",
        "\udc00",
        "\ue0000\ue001",
        "e\u0301",
        "🛰️",
        "מה",
        "a",
        "12",
        "?",
        ",",
        ":",
        ".",
        "{",
        "[",
        "]",
        "}",
        "(",
        ")",
    ),
    *(
        "[[100, 100], [600, 100], [600, 600]]",
        "[1, 2, 3, 4]",
        '{"polygons": [',
        '"text": "',
        "```json",
        "```",
        "{{ x }}",
    ),
)
"""Bits of text that mean something somewhere."""

huge = st.sampled_from([10**400, -(10**30), 1e308, -1e308, 1e-320, float("inf"), float("-inf"), float("nan")])
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=12).map("".join)
scalars = st.none() | st.booleans() | st.integers(-2000, 3000) | st.floats() | huge | texts
keys = st.sampled_from(
    ["polygons", "segmentation", "masks", "instances", "objects", "polygon", "points", "bbox", "box", "x", "y", "label"]
) | st.text(max_size=4)


def nests(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """JSON of these leaves, nested in any way; some of it as text inside of it."""
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=5)
            | st.dictionaries(keys, inner, max_size=4)
            | st.lists(inner, max_size=4).map(_dumps)
        ),
        max_leaves=25,
    )


def _dumps(value: Any) -> str:
    return json.dumps(value)


json_values = nests(scalars)

points = st.tuples(st.integers(-300, 1009), st.integers(-300, 1009))
polygons = st.lists(points, min_size=3, max_size=12)
"""Polygons in thousandths, as (x, y) of whole numbers; any order of corners."""


@st.composite
def near_polygons(draw: st.DrawFn) -> Any:
    """Polygons spelled in one way, of which one number or point is something else."""
    spelled: Any = draw(st.sampled_from(["points", "flat", "keyed"]))
    corners = draw(polygons)
    value: list[Any] = [list(corner) for corner in corners]
    if spelled == "flat":
        value = [number for corner in corners for number in corner]
    if spelled == "keyed":
        value = [{"x": x, "y": y} for x, y in corners]
    place = draw(st.integers(0, len(value) - 1))
    if isinstance(value[place], list) and draw(st.booleans()):
        value[place][draw(st.integers(0, 1))] = draw(scalars)
    else:
        value[place] = draw(scalars | points.map(list) | st.lists(scalars, max_size=3))
    return draw(
        st.sampled_from([value, [value], [value, SQUARE], {"polygon": value}, [{"points": value}], {"bbox": value}])
    )


parts = st.fixed_dictionaries({"type": st.just("text"), "text": texts}) | st.just({"type": "image"}) | texts
contents = texts | st.lists(parts, max_size=3)
roles = st.sampled_from(["user", "assistant", "user", "assistant", "human", "gpt", "system", "Assistant ", "tool"])


@st.composite
def near_chats(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Conversations in both spellings; mostly a question is answered in the end."""
    said = draw(st.lists(st.tuples(roles, contents), max_size=3))
    if draw(st.integers(0, 4)):
        said += [("user", draw(contents)), ("assistant", draw(contents))]
    names = draw(st.sampled_from([("role", "content"), ("from", "value")]))
    return [dict(zip(names, turn, strict=True)) for turn in said]


chats = near_chats() | json_values


@st.composite
def metadata(draw: st.DrawFn) -> str | None:
    """A metadata cell as text."""
    shapes = nests(points.map(list) | st.integers(-100, 1100)) | near_polygons() | st.lists(polygons, max_size=4)
    record = st.dictionaries(keys, shapes, max_size=3) | st.fixed_dictionaries({"polygons": shapes}) | json_values
    return draw(st.none() | st.just("") | st.text(max_size=20) | record.map(_dumps) | record.map(_dumps).map(_cut))


def _cut(text: str) -> str:
    return text[: len(text) * 2 // 3]


tasks = st.sampled_from(["building_segmentation", "instance_segmentation", "flood_assessment", "vqa"])
said = texts.map(lambda text: f"It {text}")
good_chats = st.tuples(said, said).map(lambda turns: chat(*turns)) | st.tuples(said, polygons, said).map(
    lambda turns: chat(turns[0], f"{_dumps(turns[1])} {turns[2]}")
)
good_metadata = (
    st.lists(polygons, max_size=6).map(lambda found: _dumps({"polygons": found}))
    | st.lists(polygons, max_size=6).map(lambda found: _dumps({"objects": [{"polygon": ring} for ring in found]}))
    | st.lists(points, min_size=2, max_size=2).map(lambda corners: _dumps({"objects": [{"bbox": sum(corners, ())}]}))
)


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Any]:
    """A dataset's row, in every second case with a column that is anything."""
    good = {
        "task": draw(tasks),
        "source": "made up",
        "image": {"bytes": PICTURE, "path": None},
        "conversations": draw(good_chats),
        "metadata": draw(good_metadata),
    }
    strange: dict[str, st.SearchStrategy[Any]] = {
        "task": texts | st.none(),
        "source": texts | scalars,
        "image": json_values | st.binary(max_size=40) | st.integers(0, len(PICTURE)).map(lambda end: PICTURE[:end]),
        "conversations": json_values
        | json_values.map(_dumps)
        | good_chats.map(_cut)
        | chats
        | near_chats().map(_dumps),
        "metadata": json_values | metadata(),
    }
    changed = draw(st.sampled_from([None] * len(strange) + sorted(strange)))
    return good | ({changed: draw(strange[changed])} if changed else {})


config_values = (
    st.integers(-5, 3000)
    | st.floats()
    | huge
    | st.sampled_from([0, -1, 0.5, 32.0, 1e300, "", " ", "q_proj", [], [""]])
    | texts
    | st.lists(texts, max_size=3)
    | st.none()
    | st.booleans()
)


@st.composite
def model_configs(draw: st.DrawFn, known: dict[str, Any]) -> Any:
    """What a model_config.json may hold: mostly known keys, one or two of them with other values; or any other JSON."""
    if draw(st.integers(0, 9)) == 0:
        return draw(json_values)
    names = st.sampled_from([*known, "of_later"])
    return {**known, **draw(st.dictionaries(names, config_values, min_size=1, max_size=2))}


def environments(names: list[str]) -> st.SearchStrategy[dict[str, str]]:
    """Environment variables of a run, with texts that are numbers, words or anything that an environment can hold."""
    numbers = (
        st.integers(-3, 10**12).map(str) | st.floats().map(str) | st.sampled_from(["1e3", "1_000", " 7 ", "٣", "0x10"])
    )
    words = st.sampled_from(
        ["demo", "full", "auto", "fp32", "cpu", "none", "tensorboard", "~nobody", "10m", "0", "1", "-0"]
    )
    anything = st.text(st.characters(exclude_characters="\0"), max_size=12) | st.just("a" * 5000)
    return st.dictionaries(st.sampled_from(names), numbers | words | anything, max_size=4)
