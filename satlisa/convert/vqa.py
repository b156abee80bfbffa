"""Questions and answers: RSVQA's three JSON files, FloodNet's JSON, and CSV."""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from satlisa.convert.picture import ENDINGS, ImageFinder, try_picture
from satlisa.convert.problems import Problems
from satlisa.convert.scene import Scene, Spoken
from satlisa.convert.splits import split_named
from satlisa.convert.tables import read_csv, text_of
from satlisa.convert.templates import read_json
from satlisa.data.json_cells import describe
from satlisa.errors import SatlisaError

_COLUMNS = (
    ("image", "filename", "file_name", "file", "image_id"),
    ("question", "prompt"),
    ("answer", "ground_truth", "label"),
)
_TASK = "visual_question_answering"
_INACTIVE = "questions marked as not active or without an answer, left out"
Asked = Iterator[tuple[str, str, str]]
"""Image, question, answer."""


def read(inputs: list[str], options: argparse.Namespace, problems: Problems) -> list[Scene]:
    """The images of `[*_questions.json *_answers.json | questions.json | questions.csv] IMAGES`.

    Raises:
        SatlisaError: no such files, answers without questions, texts that are none.
    """
    folders = [Path(name) for name in inputs if Path(name).is_dir()]
    files = [Path(name) for name in inputs if not Path(name).is_dir()]
    if not files:
        files = [path for folder in folders for path in sorted(folder.glob("*.json"))]
    scenes: dict[tuple[str, str], list[Spoken]] = {}
    finder = ImageFinder(*folders, *{path.parent for path in files})
    for split, asked in _sources(files, problems):
        for name, question, answer in asked:
            scenes.setdefault((name, split), []).append(Spoken(_TASK, question, answer))
    found = []
    for (name, split), spoken in scenes.items():
        if picture := try_picture(_image(finder, name), name, problems):
            found.append(Scene(name, picture, spoken=list(dict.fromkeys(spoken)), split=split))
    return found


def _image(finder: ImageFinder, name: str) -> Path:
    """The file of a name; RSVQA's are numbers, whose files end in .tif."""
    if Path(name).suffix.lower() in ENDINGS:
        return finder.find(name)
    found = (finder.find(f"{name}{ending}") for ending in (".tif", ".png", ".jpg", ".JPG"))
    return next((path for path in found if path.exists()), finder.find(f"{name}.tif"))


def _sources(files: list[Path], problems: Problems) -> Iterator[tuple[str, Asked]]:
    """The questions of each file, or of each pair of files, with the split that its name says."""
    is_several = len({split_named(path.stem) for path in files} - {""}) > 1
    answers = [path for path in files if "answers" in path.stem]
    for path in files:
        split = split_named(path.stem) if is_several else ""
        if path in answers or path.stem.endswith("images"):
            continue
        if path.suffix.lower() == ".csv":
            yield split, _from_csv(path)
            continue
        partner = path.with_name(path.name.replace("questions", "answers"))
        content = read_json(path)
        if partner in answers and partner != path:
            yield split, _from_rsvqa(path, content, partner, problems)
        else:
            yield split, _from_list(path, content)


def _from_csv(path: Path) -> Asked:
    for line, row in read_csv(path, _COLUMNS):
        yield tuple(text_of(row[names[0]], f"{path}: line {line}") for names in _COLUMNS)  # type: ignore[misc]


def _from_list(path: Path, content: Any) -> Asked:
    """FloodNet's JSON: entries, in a list or by number, with Image_ID, Question and Ground_Truth."""
    entries = list(content.values()) if isinstance(content, Mapping) else content
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise SatlisaError(
            f"{path}: expected entries with an image, a question and an answer; found {describe(content)}"
        )
    for number, entry in enumerate(entries):
        lower = {str(name).casefold(): value for name, value in entry.items()}
        where = f"{path}: entry {number}"
        found = []
        for names in _COLUMNS:
            if not any(name in lower for name in names):
                raise SatlisaError(f"{where}: no {names[0]}; found {describe(entry)}")
            found.append(text_of(next(lower[name] for name in names if name in lower), where))
        yield found[0], found[1], found[2]


def _from_rsvqa(path: Path, content: Any, partner: Path, problems: Problems) -> Asked:
    """RSVQA: a question names its image and its answers; entries that are not `active` have only an id."""
    questions, answers = _entries(path, content, "questions"), _entries(partner, read_json(partner), "answers")
    by_question: dict[Any, list[Any]] = {}
    for entry in answers.values():
        if entry.get("active", True):
            by_question.setdefault(entry.get("question_id"), []).append(entry.get("answer"))
    for number, entry in questions.items():
        where = f"{path}: question {number}"
        if not entry.get("active", True) or number not in by_question:
            problems.add(_INACTIVE, where)
            continue
        if len(by_question[number]) > 1:
            raise SatlisaError(f"{where}: expected one answer, found {len(by_question[number])}; keep one")
        image = text_of(entry.get("img_id"), where)
        yield image, text_of(entry.get("question"), where), text_of(by_question.pop(number)[0], where)


def _entries(path: Path, content: Any, name: str) -> dict[Any, Mapping[str, Any]]:
    entries = content.get(name) if isinstance(content, Mapping) else None
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) and "id" in entry for entry in entries):
        raise SatlisaError(f"{path}: expected RSVQA's `{name}` with ids, found {describe(content)}")
    found = {entry["id"]: entry for entry in entries}
    if len(found) < len(entries):
        raise SatlisaError(f"{path}: {name}: an id is there twice; mend the file")
    return found
