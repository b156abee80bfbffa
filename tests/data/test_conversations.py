"""Every spelling of a conversation gives the same turns; coordinates leave an answer without a trace."""

import contextlib
import json
from typing import Any

import pytest

from satlisa.data.conversations import find_mask_answer, parse_turns, split_answer, take_coordinates
from satlisa.data.sample import Turn
from tests.helpers.quick import quick

QUESTION, ANSWER = "Segment the buildings", "Two buildings."
TURNS = [Turn("user", QUESTION), Turn("assistant", ANSWER)]


@pytest.mark.parametrize(
    "value",
    [
        [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}],
        [{"from": "human", "value": f"<image>\n{QUESTION}"}, {"from": "gpt", "value": ANSWER}],
        [{"from": "user", "value": f"{QUESTION} <image>"}, {"from": "assistant", "value": ANSWER}],
        [{"role": "USER", "content": "Segment <image> the buildings"}, {"role": "model", "content": ANSWER}],
        [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]},
            {"role": "assistant", "content": [{"type": "text", "text": ANSWER}]},
        ],
        [
            {"role": "user", "content": [{"type": "image", "text": None}, QUESTION]},
            {"role": "assistant", "content": [ANSWER]},
        ],
        [
            {"role": "user", "content": "<image>"},  # the image as a turn of its own
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": ANSWER},
        ],
    ],
)
def test_spellings_of_one_conversation(value: Any) -> None:
    assert parse_turns(value) == TURNS
    assert parse_turns(json.dumps(value)) == TURNS


def test_system_turn_and_earlier_turns_are_context() -> None:
    turns = parse_turns(
        [
            {"from": "system", "value": "You are an analyst."},
            {"from": "human", "value": "What is this?"},
            {"from": "gpt", "value": "A city."},
            {"from": "human", "value": "How many planes?"},
            {"from": "gpt", "value": 3},
            {"from": "human", "value": "And cars?"},  # never answered
        ]
    )
    context, answer = split_answer(turns)
    assert [turn.role for turn in context] == ["system", "user", "assistant", "user"]
    assert (context[-1].text, answer) == ("How many planes?", "3")


def test_numbers_and_half_characters() -> None:
    turns = [{"role": "user", "content": 10**400}, {"role": "assistant", "content": "\ud83d a"}]
    assert parse_turns(turns) == [Turn("user", "1" + "0" * 400), Turn("assistant", "\ufffd a")]
    with pytest.raises(ValueError, match="turn 0: expected text or a list of parts, found nan"):
        parse_turns('[{"role": "user", "content": NaN}]')


def test_markers_leave_the_rest_of_a_text_alone() -> None:
    text = "First line\n\n  indented <SEG> [10, 20, 30, 40] "
    turns = [{"role": "user", "content": text}, {"role": "assistant", "content": "a\n<image>\nb  c"}]
    assert parse_turns(turns) == [Turn("user", text), Turn("assistant", "a\n\nb  c")]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("nan", r"is not JSON \(starts with 'nan'\)"),
        (None, "is not a list of turns: found None"),
        ('{"a": 1}', "is not a list of turns: found an object with the keys a"),
        ([5], "turn 0: expected an object, found 5"),
        ([{"role": "tool", "content": "x"}], "turn 0: expected a user, assistant or system turn, found 'tool'"),
        ([{"role": "user"}], "turn 0: expected role and content, or from and value"),
        ([{"speaker": "a", "text": "b"}], "found an object with the keys speaker, text"),
        ([{"role": "user", "content": True}], "turn 0: expected text or a list of parts, found True"),
        ([{"role": "user", "content": [{"type": "video"}]}], "turn 0: expected a text or image part"),
    ],
)
def test_unreadable_conversations_are_named(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_turns(value)


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ([], r"no question with an answer \(roles of the turns with text: none\)"),
        (["user"], "roles of the turns with text: user"),
        (["assistant", "user"], "roles of the turns with text: assistant, user"),
        (["user", "system", "user", "assistant"], "system turn that is not the first"),
    ],
)
def test_conversations_without_an_answer(roles: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_answer([Turn(role, "text") for role in roles])


RING = "[[100, 200], [300, 200], [300, 600]]"


@pytest.mark.parametrize(
    ("answer", "text", "regions"),
    [
        (f"Here they are: {RING}.", "Here they are.", 1),
        (f"Building 1: {RING}, building 2: {RING}", "Building 1, building 2", 2),
        (f"Two of them ({RING}) <SEG> in the north.", "Two of them in the north.", 1),
        (f'Done.\n```json\n{{"polygons": [{RING}, {RING}]}}\n```', "Done.", 2),
        (f'Found {{"objects": [{{"label": "a", "polygon": {RING}}}]}} !', "Found!", 1),
        (f'[{{"bbox": [1, 2, 3, 4]}}, {{"points": {RING}}}] Both.', "Both.", 2),
        (f'{{"answer": "Three roofs.", "segmentation": [{RING}]}}', "Three roofs.", 1),
        (f"[{RING}, {RING}]", "", 2),
        ("[100, 200, 300, 200, 300, 600]", "", 1),
        ("A house at [10, 20, 30, 40].", "A house at.", 0),
        ("There are [3] buildings [see note], {really}.", "There are [3] buildings [see note], {really}.", 0),
        ("Sure, [SEG]. It is <seg>", "Sure. It is", 0),
    ],
)
def test_coordinates_are_taken_out(answer: str, text: str, regions: int) -> None:
    assert take_coordinates(answer)[0] == text
    found = take_coordinates(answer)[1]
    assert len(found) == regions
    triangles = [region for region in found if len(region[0]) == 3]
    assert all(triangle[0].tolist() == [[0.1, 0.2], [0.3, 0.2], [0.3, 0.6]] for triangle in triangles)
    assert len(triangles) >= min(regions, 1)


@pytest.mark.parametrize(
    "answer",
    [
        f'Here: {{"polygons": [{RING}, [[1, 2], [3',
        f"Here: [{RING}, [[1, 2], [3",
        f"{{'polygons': [{RING}]}}",
        "[10, 20, 30",
    ],
)
def test_json_that_breaks_off_is_refused(answer: str) -> None:
    with pytest.raises(ValueError, match="holds JSON that cannot be read"):
        take_coordinates(answer)


def test_json_under_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValueError, match="not under a known key: found an object with the keys result"):
        take_coordinates(f'{{"result": {{"polygons": [{RING}]}}}}')


@pytest.mark.parametrize(
    "answer",
    [
        "\n" * 100_000 + "x",
        ":" * 100_000 + "x",
        " ," * 50_000 + "x",
        "[ x" * 30_000,
        "[true," * 10_000,
        "```a " * 20_000,
    ],
    ids=["line breaks", "colons", "commas", "brackets", "lists", "fences"],
)
def test_no_answer_takes_long(answer: str) -> None:
    """Each took a minute, or would have, where blanks are matched from every one of them."""
    with quick(2), contextlib.suppress(ValueError):
        take_coordinates(answer)


def test_no_question_takes_long() -> None:
    with quick(2):
        turns = parse_turns([{"role": "user", "content": "a" + " " * 100_000 + "b <image>"}])
    assert len(turns[0].text) == 100_002


def conversation(*texts: str) -> list[Turn]:
    return [Turn(("user", "assistant")[number % 2], text) for number, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("texts", "with_coordinates", "place"),
    [
        (("Segment it", "Here."), [], 1),
        (("Segment the buildings", "Here.", "How many are there?", "Two."), [], 1),
        (("How many?", "Two.", "Please segment them", "Here."), [], 3),
        (("Segment it", "Here.", "How many did you segment?", "Two."), [], 1),
        (("Where could people live?", "There.", "How many?", "Two."), [], 1),
        (("How many?", "Two.", "Do a segmentation of the buildings", "Sure."), [], 3),
        (("How many?", "Two.", "Which pixels are buildings? Segment them.", "Sure."), [], 3),
        (("How many?", "Two.", "Can you show the buildings' extents?", "Sure."), [], 3),
        (("How many?", "Two.", "Is it possible to segment them?", "Sure."), [], 3),
        (("Segment it", "I cannot.", "Why?", "Now: <SEG>"), [], 3),
        (("What is this?", "A town.", "Where?", f"At {RING}."), [3], 3),
        (("Where?", f"At {RING}.", "Show it", "Here: <SEG>"), [1], 3),
    ],
)
def test_the_answer_that_masks_belong_to(texts: tuple[str, ...], with_coordinates: list[int], place: int) -> None:
    assert find_mask_answer(conversation(*texts), with_coordinates) == place


@pytest.mark.parametrize(
    ("texts", "with_coordinates", "message"),
    [
        (("How many?", "Two.", "Are they large?", "Yes."), [], "2 answers, and no question asks for masks"),
        (("a", "<SEG>", "b", "[SEG]"), [], "has <SEG> in 2 answers"),
        (("a", RING, "b", RING), [1, 3], "has coordinates in 2 answers"),
        (("Segment the roofs", "Here.", "Segment the roads", "Here."), [], "questions for masks before 2 answers"),
    ],
)
def test_masks_that_may_belong_to_several_answers(
    texts: tuple[str, ...], with_coordinates: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        find_mask_answer(conversation(*texts), with_coordinates)


@pytest.mark.parametrize(
    "value",
    [
        {"role": ["user", "assistant"], "content": [QUESTION, ANSWER]},
        {"from": ("human", "gpt"), "value": (QUESTION, ANSWER)},
        json.dumps(json.dumps([{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}])),
        [json.dumps({"role": "user", "content": QUESTION}), json.dumps({"role": "assistant", "content": ANSWER})],
    ],
)
def test_lists_of_columns_and_json_in_json(value: Any) -> None:
    assert parse_turns(value) == TURNS


def test_two_images_are_refused() -> None:
    for content in (
        "<image> <image>",
        "<image_1> <image_2>",
        "<image1> and <image2>",
        "<IMAGE> <IMAGE>",
        "<img>a.png</img> and <img>b.png</img>",
        "<ImageHere><ImageHere>",
        [{"type": "image"}, "x", {"image_url": "b.png"}],
        ["<image>", {"type": "image"}],
    ):
        with pytest.raises(ValueError, match="names 2 images; a row is about one image"):
            parse_turns([{"role": "user", "content": content}, {"role": "assistant", "content": "a"}])
