"""Which transformers has Qwen3.5."""

import importlib.util
import sys

import pytest

from satlisa.errors import SatlisaError
from satlisa.model import qwen
from tests.helpers.paths import ROOT


def test_an_older_transformers_is_told_the_version_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    required = (ROOT / "requirements.txt").read_text()
    assert f"\n{qwen.NEEDED}  #" in required
    monkeypatch.setitem(sys.modules, "transformers.models.qwen3_5", None)
    spec = importlib.util.spec_from_file_location("again", qwen.__file__)
    assert spec is not None and spec.loader is not None
    with pytest.raises(SatlisaError, match=r"transformers .* has no Qwen3\.5; install transformers>=5\.17,<6"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
