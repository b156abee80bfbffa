"""The whole repository, used from elsewhere without a network."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from satlisa.model.satlisa import SatLisa
from satlisa.pretrained.model_directory import load_model
from satlisa.publish.command import main
from satlisa.publish.parts import Names
from satlisa.publish.repository import Wishes, put_together
from tests.helpers.model_fixtures import picture
from tests.helpers.published import HOME, REPO, change_json


def test_notes_say_what_is_left_out_and_decided(demo_run: Path, tmp_path: Path) -> None:
    change_json(demo_run / "model_config.json", dataset=f"{HOME}/mine")
    notes = put_together(demo_run, Wishes(REPO, Names())).notes
    assert [note.split(": ")[0] for note in notes] == ["left out", "base_model", "dataset", "license"]
    assert notes[0].startswith("left out: checkpoints/, notes.txt") and HOME not in "".join(notes)
    change_json(demo_run / "model_config.json", dataset="a/b")
    notes = put_together(demo_run, Wishes(REPO, Names(), license_id="mit")).notes
    assert [note.split(": ")[0] for note in notes] == ["left out", "base_model"]


def write(run: Path, output: Path, *options: str) -> None:
    arguments = ["publish", "--model_dir", str(run), "--repo", REPO, "--dry_run", str(output), *options]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", arguments)
        assert main() == 0


@contextmanager
def without_our_modules() -> Iterator[None]:
    """Meanwhile, satlisa is imported from where `sys.path` says, as in a new process."""
    path, kept = list(sys.path), {name: module for name, module in sys.modules.items() if _is_ours(name)}
    try:
        for name in kept:
            del sys.modules[name]
        yield
    finally:
        for name in [name for name in sys.modules if _is_ours(name)]:
            del sys.modules[name]
        sys.modules.update(kept)
        sys.path[:] = path


def _is_ours(module: str) -> bool:
    return module.split(".")[0] in ("satlisa", "inference")


@pytest.mark.integration
def test_the_folder_is_a_model(demo_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(demo_run, tmp_path / "out")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    model, own = load_model(tmp_path / "out", "cpu"), load_model(demo_run, "cpu")
    state = own.state_dict()
    assert all(tensor.equal(state[name]) for name, tensor in model.state_dict().items())


@pytest.fixture
def other_satlisa(tmp_path: Path) -> Path:
    """Where another satlisa is installed, which must not be the one that answers."""
    (tmp_path / "site" / "satlisa").mkdir(parents=True)
    (tmp_path / "site" / "satlisa" / "__init__.py").write_text("raise ImportError('the satlisa that is installed')")
    picture(40, 30).save(tmp_path / "sat.jpg")
    return tmp_path / "site"


@pytest.mark.integration
def test_the_repository_answers_by_itself(demo_run: Path, tmp_path: Path, other_satlisa: Path) -> None:
    write(demo_run, out := tmp_path / "out", "--with_code")
    command = [sys.executable, str(out / "inference.py"), "--model_dir", str(out), "--image", "sat.jpg"]
    command += ["--prompt", "What land cover type is this?", "--max_new_tokens", "4"]
    environment = {**os.environ, "PYTHONPATH": str(other_satlisa), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


@pytest.mark.integration
def test_the_snippet_takes_the_code_of_the_repository(
    demo_run: Path, tmp_path: Path, other_satlisa: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(demo_run, out := tmp_path / "out", "--with_code")
    snippet = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(encoding="utf-8"), re.DOTALL)[2]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(other_satlisa)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repo: str(out))
    names: dict[str, Any] = {}
    with without_our_modules():
        exec(snippet.replace('is this?")', 'is this?", max_new_tokens=4)'), names)
        assert Path(sys.modules["satlisa"].__file__ or "").parent == out / "satlisa"
    assert type(names["model"]).__name__ == "SatLisa" and not isinstance(names["model"], SatLisa)
