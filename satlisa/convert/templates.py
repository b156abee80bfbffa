"""The wordings of questions and answers: `templates.json`, or a file of the same keys for other words or languages."""

import json
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Any

from satlisa.errors import SatlisaError, first_line

DEFAULT = Path(__file__).with_name("templates.json")
_BLANKS = {
    "segmentation": ("thing", "things", "are", "Are"),
    "instance_segmentation": ("thing", "things", "are", "Are", "count", "is_count"),
    "no_objects": ("thing", "things", "are", "Are"),
    "boxes": ("boxes",),
    "counts": ("counts",),
    "presence": ("thing", "things", "are", "Are", "yes_no"),
    "scene_classification": ("thing",),
    "image_captioning": ("text",),
}
_WORDS = {"and", "nothing", "yes", "no", "is", "are", "plurals", "uncountable"}


class Templates:
    """Several wordings of each question and answer, chosen by a seed.

    Args:
        content: as in `templates.json`; tasks and words that it lacks are taken from there.
        names: words for classes, by their spelling in the format.
    """

    def __init__(self, content: Mapping[str, Any], names: Mapping[str, str], seed: int) -> None:
        default = json.loads(DEFAULT.read_text(encoding="utf-8"))
        self._wordings = {task: {**default[task], **content.get(task, {})} for task in _BLANKS}
        self._words = {**default["words"], **content.get("words", {})}
        self._names, self._seed = names, seed

    @classmethod
    def load(cls, path: Path | None, names: Mapping[str, str], seed: int) -> "Templates":
        """The templates of a file; None: the package's.

        Raises:
            SatlisaError: not such JSON, an unknown task, or a blank in braces that a task does not have.
        """
        content = read_json(path) if path else {}
        if not isinstance(content, dict) or set(content) - {*_BLANKS, "words"}:
            raise SatlisaError(f"{path}: expected an object with {', '.join(_BLANKS)}, words; found {list(content)}")
        for task, wording in content.items():
            if task == "words":
                _check_words(path, wording)
            else:
                _check_task(path, task, wording)
        return cls(content, names, seed)

    def question(self, task: str, key: str, blanks: Mapping[str, str]) -> str:
        """A question of a task.

        Args:
            key: what it is about; equal keys get the same wording.
        """
        return self._choose(task, "questions", key).format(**blanks)

    def answer(self, task: str, key: str, blanks: Mapping[str, str]) -> str:
        """An answer of a task, its first letter upper case where it is a sentence or a list of counts."""
        text = self._choose(task, "answers", key).format(**blanks)
        return text[:1].upper() + text[1:] if task != "boxes" else text

    def about(self, label: str) -> dict[str, str]:
        """The blanks about a class."""
        thing = self.name(label)
        are = str(self._words["is" if self._is_uncountable(thing) else "are"])
        return {"thing": thing, "things": self._plural(thing), "are": are, "Are": are[:1].upper() + are[1:]}

    def counted(self, label: str, count: int) -> dict[str, str]:
        """The blanks about a number of objects: "3 buildings", "1 building"."""
        blanks = self.about(label)
        many = count != 1 and blanks["thing"] != blanks["things"]
        verb = str(self._words["is" if count == 1 else "are"])
        return {**blanks, "count": f"{count} {blanks['things' if many else 'thing']}", "is_count": verb}

    def listed(self, counts: Mapping[str, int]) -> str:
        """ "3 buildings, 1 plane and 2 roads"."""
        parts = [self.counted(label, count)["count"] for label, count in counts.items()]
        if not parts:
            return str(self._words["nothing"])
        return str(self._words["and"]).join(filter(None, (", ".join(parts[:-1]), parts[-1])))

    def word(self, name: str) -> str:
        """One of the single words: "nothing", "yes", "no"."""
        return str(self._words[name])

    def name(self, label: str) -> str:
        """A class in words: "AnnualCrop" and "annual_crop" are "annual crop"; an abbreviation stays as it is."""
        if label in self._names:
            return self._names[label]
        spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label)
        words = re.sub(r"[\s_-]+", " ", spaced).strip()
        return " ".join(word if len(word) > 1 and word.isupper() else word.lower() for word in words.split(" "))

    def chance(self, key: str) -> random.Random:
        """A generator that depends on the seed and the key alone."""
        return random.Random(f"{self._seed} {key}")

    def _choose(self, task: str, part: str, key: str) -> str:
        return str(self.chance(f"{task} {part} {key}").choice(self._wordings[task][part]))

    def _is_uncountable(self, thing: str) -> bool:
        return thing in self._words["uncountable"] or thing == self._words["plurals"].get(thing)

    def _plural(self, thing: str) -> str:
        """English plural of the last word, unless `plurals` or `uncountable` say otherwise."""
        if (given := self._words["plurals"].get(thing)) or thing in self._words["uncountable"]:
            return str(given or thing)
        if re.search(r"[^aeiou]y$", thing):
            return f"{thing[:-1]}ies"
        return f"{thing}es" if re.search(r"(?:s|x|z|ch|sh)$", thing) else f"{thing}s"


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        SatlisaError: no such file, or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise SatlisaError(f"{path}: no such file; check the path") from error
    except (OSError, ValueError, RecursionError) as error:
        raise SatlisaError(f"{path}: expected a JSON file ({first_line(error)})") from error


def _check_task(path: Path | None, task: str, wording: Any) -> None:
    if not isinstance(wording, dict) or set(wording) - {"questions", "answers"}:
        raise SatlisaError(f"{path}: {task}: expected an object with questions and answers")
    for part, texts in wording.items():
        if not isinstance(texts, Sequence) or isinstance(texts, str) or not texts:
            raise SatlisaError(f"{path}: {task}: {part}: expected a list of texts")
        for text in texts:
            try:
                found = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
            except (ValueError, TypeError) as error:
                raise SatlisaError(f"{path}: {task}: {part}: {text!r} ({first_line(error)})") from error
            if found - set(_BLANKS[task]):
                known = ", ".join(f"{{{name}}}" for name in _BLANKS[task])
                raise SatlisaError(f"{path}: {task}: {part}: {text!r}: the blanks are {known}")


def _check_words(path: Path | None, words: Any) -> None:
    if not isinstance(words, dict) or set(words) - _WORDS:
        raise SatlisaError(f"{path}: words: expected an object with {', '.join(sorted(_WORDS))}")
