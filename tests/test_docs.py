"""The documentation names only what exists (links, files, headings, functions), and every file of the package."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import satlisa
from satlisa.data.rows import read_sample
from tests.helpers.paths import ROOT

PACKAGE = ROOT / "satlisa"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
FOLDERS = sorted({path.parent for path in PACKAGE.rglob("*.py")} - {PACKAGE})
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("benchmarks/*.md"),
        *ROOT.glob("tests/*.md"),
        *PACKAGE.rglob("*.md"),
    ]
)
SOURCES = [
    path for folder in ("satlisa", "tests", "benchmarks", "stress", "tools") for path in ROOT.glob(f"{folder}/**/*.py")
]
_CITED = r"\b((?:docs|satlisa|tests|benchmarks|stress|tools)/[\w/]+\.(?:md|py))(?:#([\w-]+))?"


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def headings(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def section(page: Path, title: str) -> str:
    """The text under a heading of the second level."""
    return page.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_readme_is_short_and_asks_early() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert any("generate_text(model" in line for line in lines[:60])


def test_readme_uses_what_the_package_offers() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"^from satlisa import (.+)$", text, re.MULTILINE)[0].split(", "):
        assert name in satlisa.__all__, name
    options = "".join(path.read_text(encoding="utf-8") for path in (PACKAGE / "cli").glob("*.py"))
    for option in re.findall(r"--\w+", "".join(re.findall(r"^python inf.*(?:\\\n.*)?$", text, re.MULTILINE))):
        assert f'"{option}"' in options, option


def test_the_row_of_the_page_about_datasets_is_read() -> None:
    example = re.search(r"```json\n(.*?)```", (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    sample = read_sample({**json.loads(example[1]), "image": Image.new("RGB", (8, 8))}, 0)
    assert len(sample.regions) == 1 and sample.regions[0][0][0].tolist() == [0.12, 0.08]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", link):
            target, _, anchor = link.partition("#")
            place = page.parent / target if target else page
            assert place.exists(), link
            assert not anchor or anchor in headings(place), link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_named_files_exist(page: Path) -> None:
    """A path starts at the root, the package or the page; the pages at the top may also give a bare file name."""
    known = {path.name for path in [*SOURCES, *ROOT.glob("*.py")]} if PACKAGE not in page.parents else set()
    for name in re.findall(r"(?<![\w./*-])[\w./-]*\w\.(?:py|sh)\b", page.read_text(encoding="utf-8")):
        assert name in known or any((root / name).exists() for root in (ROOT, PACKAGE, page.parent)), name


def test_comments_cite_what_exists() -> None:
    for source in SOURCES:
        cited = re.findall(_CITED, source.read_text(encoding="utf-8"))
        for name, anchor in cited:
            assert (ROOT / name).exists(), f"{name_of(source)} cites {name}"
            assert not anchor or anchor in headings(ROOT / name), f"{name_of(source)} cites {name}#{anchor}"


def files_of_the_map() -> Iterator[tuple[str, str]]:
    """(path, phrase) of each file in the tree of docs/architecture.md."""
    folders: list[str] = []
    for line in section(ARCHITECTURE, "Folders").split("```")[1].strip().splitlines():
        indent, name, phrase = re.fullmatch(r"( *)(\S+) *(.*)", line).groups()  # type: ignore[union-attr]
        folders = folders[: len(indent) // 2]
        if name.endswith("/"):
            folders.append(name)
        else:
            yield "".join([*folders, name]), phrase


def test_the_map_has_every_file_and_no_other() -> None:
    named = dict(files_of_the_map())
    assert set(named) == {name_of(path) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
    assert all(named.values())


@pytest.mark.parametrize("title", ["From a row to the loss", "From a prompt to a mask"])
def test_functions_are_where_the_walks_say(title: str) -> None:
    steps = re.findall(r"^\| `([\w.]+)` \| `([\w/.]+)` \|", section(ARCHITECTURE, title), re.MULTILINE)
    assert len(steps) > 4
    for function, name in steps:
        text = (ROOT / name).read_text(encoding="utf-8")
        for part in function.split("."):
            assert re.search(rf"^ *(?:def|class) {part}\b", text, re.MULTILINE), f"{function} in {name}"


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_every_folder_says_what_comes_in_and_goes_out(folder: Path) -> None:
    lines = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 10
    for word in ("In", "Out", "Open first", "May import"):
        assert any(line.startswith(f"- **{word}**") for line in lines), word
