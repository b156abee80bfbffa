"""The code that is published beside a model."""

from pathlib import Path

import pytest

from satlisa.errors import SatlisaError
from satlisa.publish import code
from tests.helpers.paths import ROOT


def test_the_package_without_demo_models_caches_and_tests() -> None:
    files = code.code_files(with_demo=False)
    tracked = {path.relative_to(ROOT).as_posix() for path in (ROOT / "satlisa").rglob("*.py")}
    assert tracked | {"inference.py", "requirements.txt", "satlisa/model_config.json"} < set(files)
    assert not [name for name in files if "weights" in name or "__pycache__" in name or name.startswith("tests")]
    assert files["satlisa/model_config.json"] == ROOT / "model_config.json"
    assert "satlisa/convert/templates.json" in files and "model_config.json" not in files


def test_a_demo_model_brings_the_demo_models() -> None:
    more = set(code.code_files(with_demo=True)) - set(code.code_files(with_demo=False))
    weights = ROOT / "satlisa" / "demo" / "weights"
    assert more == {path.relative_to(ROOT).as_posix() for path in weights.rglob("*") if path.is_file()}


def test_an_installed_package_has_no_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "_PACKAGE", tmp_path / "satlisa")
    with pytest.raises(SatlisaError, match=r"has no inference.py and no requirements.txt; run this in a checkout"):
        code.code_files(with_demo=False)
