"""The rule of the house: a folder imports what comes before it in the data's way, and nothing that comes after it."""

import ast
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

PACKAGE = ROOT / "satlisa"
# A folder may import those of earlier rows; those of one row do not know each other.
ORDER = [
    ("errors",),
    ("geometry", "runtime"),
    ("config",),
    ("data",),
    ("processing",),
    ("model",),
    ("pretrained",),
    ("inference", "training", "demo"),
    ("evaluation",),
    ("cli",),
    ("geo", "convert", "check", "web", "publish", "merge"),  # optional folders: nothing before them may need them
]
# A command or the page may call an optional folder, inside functions: without it, it works as before.
LAZY = {("cli", "geo"), ("cli", "check"), ("web", "geo")}
RANKS = {name: rank for rank, row in enumerate(ORDER) for name in row}
NEVER = {"geometry": ("torch", "transformers"), "evaluation": ("satlisa.training", "satlisa.demo")}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imports_of(path: Path, only_at_start: bool = False) -> set[str]:
    """What a file imports, anywhere in it or outside functions, as dotted names."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(tree.body) if only_at_start else list(ast.walk(tree))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    members = [(node.module, node.names) for node in nodes if isinstance(node, ast.ImportFrom)]
    return plain | {f"{module}.{alias.name}" for module, names in members for alias in names}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_run_in_one_direction(path: Path) -> None:
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    for name in imports_of(path):
        assert not name.startswith(NEVER.get(own, ())), f"{own} imports {name}"
        other = name.split(".")[1] if name.startswith("satlisa.") else own
        if (own, other) in LAZY and name not in imports_of(path, only_at_start=True):
            continue
        assert other == own or other == "__version__" or RANKS[other] < RANKS[own], f"{own} imports {name}"
