"""`import satlisa`, and what pyproject.toml makes of the repository."""

import ast
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import pytest

import satlisa
import satlisa.inference.api
from tests.helpers.paths import ROOT


@pytest.fixture(scope="module")
def project() -> Any:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def python(code: str, folder: Path) -> str:
    """What the code prints in a Python of its own, started in the folder."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, satlisa; print(satlisa.__version__, {'torch', 'transformers', 'numpy'} & set(sys.modules))"
    assert python(code, ROOT) == f"{satlisa.__version__} set()"


def test_the_public_functions_are_those_of_the_api() -> None:
    functions = {"load_model", "generate_text", "generate_segmentation", "generate_instances", "stream_text", "ask"}
    assert functions | {"__version__"} == set(satlisa.__all__) <= set(dir(satlisa))
    assert all(getattr(satlisa, name) is getattr(satlisa.inference.api, name) for name in functions)
    with pytest.raises(AttributeError, match="module 'satlisa' has no attribute 'load_modle'"):
        _ = satlisa.load_modle  # type: ignore[attr-defined]


def test_the_default_configuration_is_the_packages_else_the_repositorys(tmp_path: Path, project: Any) -> None:
    """In a checkout model_config.json lies beside the package; the wheel has it in the package."""
    code = "from satlisa.config import DEFAULT_CONFIG; print(DEFAULT_CONFIG)"
    assert python(code, ROOT) == str(ROOT / "model_config.json")
    copytree(ROOT / "satlisa", tmp_path / "satlisa", ignore=ignore_patterns("weights", "__pycache__"))
    for source, target in project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"].items():
        (tmp_path / target).write_bytes((ROOT / source).read_bytes())
    assert python(code, tmp_path) == str(tmp_path / "satlisa" / "model_config.json")


def test_the_console_commands_exist(project: Any) -> None:
    commands = project["project"]["scripts"]
    assert set(commands) == {"satlisa-train", "satlisa-ask", "satlisa-evaluate"}
    assert all(callable(EntryPoint(name, target, "console_scripts").load()) for name, target in commands.items())


def test_the_requirements_files_are_the_only_source_of_dependencies(project: Any) -> None:
    assert {"dependencies", "optional-dependencies"} <= set(project["project"]["dynamic"])
    hook = project["tool"]["hatch"]["metadata"]["hooks"]["requirements_txt"]
    extras = hook["optional-dependencies"]
    assert set(extras) == {"geo", "web", "metrics", "dev"}
    read = {*hook["files"], *(name for files in extras.values() for name in files)}
    assert read == {path.name for path in ROOT.glob("requirements*.txt")}
    # The build reads no "-r" lines, so the files that requirements-dev.txt includes must be read themselves.
    included = [line[3:] for line in (ROOT / "requirements-dev.txt").read_text().splitlines() if line[:3] == "-r "]
    assert set(included) <= {*hook["files"], *extras["dev"]}


@pytest.mark.parametrize("script", ["train.py", "inference.py", "infer_dataset.py"])
def test_the_scripts_at_the_top_hold_no_logic(script: str) -> None:
    text = (ROOT / script).read_text(encoding="utf-8")
    assert len(text.splitlines()) < 20
    assert not [node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
