"""Wordings: words for classes, plurals, files of the user."""

import json
from pathlib import Path
from typing import Any

import pytest

from satlisa.convert.templates import DEFAULT, Templates
from satlisa.errors import SatlisaError

WORDS = Templates.load(None, {"CP": "car park"}, 0)


def test_words_of_classes() -> None:
    labels = ("AnnualCrop", "baseball_field", "small-vehicle", "SUV", "CP", "Buildings")
    expected = ["annual crop", "baseball field", "small vehicle", "SUV", "car park", "buildings"]
    assert [WORDS.name(label) for label in labels] == expected


def test_plurals_and_verbs() -> None:
    things = [WORDS.about(label)["things"] for label in ("building", "city", "church", "person", "water", "bus")]
    assert things == ["buildings", "cities", "churches", "people", "water", "buses"]
    assert WORDS.about("water")["are"] == "is" and WORDS.about("building")["Are"] == "Are"
    assert WORDS.listed({"building": 3, "plane": 1, "road": 2}) == "3 buildings, 1 plane and 2 roads"
    assert WORDS.listed({"road": 1}) == "1 road" and WORDS.listed({}) == "None"


def test_every_task_has_several_wordings_and_equal_keys_get_one() -> None:
    content = json.loads(DEFAULT.read_text(encoding="utf-8"))
    for task, wording in content.items():
        if "questions" in wording:
            assert len(set(wording["questions"])) > 1
            found = {WORDS.question(task, str(key), WORDS.about("building")) for key in range(50)}
            assert len(found) == len(wording["questions"])
    assert WORDS.question("boxes", "a", {}) == WORDS.question("boxes", "a", {})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"sums": {}}, "expected an object with segmentation"),
        ({"boxes": {"questions": []}}, "list of texts"),
        ({"boxes": {"questions": ["{things}"]}}, "the blanks are {boxes}"),
        ({"boxes": {"questions": ["{boxes"]}}, "boxes: questions"),
        ({"words": {"und": "und"}}, "words: expected"),
    ],
)
def test_files_of_the_user_are_checked(tmp_path: Path, content: Any, said: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps(content))
    with pytest.raises(SatlisaError, match=said):
        Templates.load(path, {}, 0)
