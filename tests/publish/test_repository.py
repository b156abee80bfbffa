"""The whole repository, used from elsewhere without a network."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from satlisa.pretrained.model_directory import load_model
from satlisa.publish.command import main
from satlisa.publish.parts import Names
from satlisa.publish.repository import Wishes, put_together
from tests.helpers.model_fixtures import picture
from tests.helpers.published import HOME, REPO, change_json, published, text_of


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


def python(*arguments: str, cwd: Path, pythonpath: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(pythonpath), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.integration
def test_the_folder_is_a_model(demo_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(demo_run, tmp_path / "out")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    model, own = load_model(tmp_path / "out", "cpu"), load_model(demo_run, "cpu")
    state = own.state_dict()
    assert all(tensor.equal(state[name]) for name, tensor in model.state_dict().items())


@pytest.mark.integration
def test_the_repository_answers_by_itself(demo_run: Path, tmp_path: Path) -> None:
    """From another folder, where another satlisa is installed, by its script and by the card's snippet."""
    write(demo_run, out := tmp_path / "out", "--with_code")
    other = tmp_path / "site" / "satlisa"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise ImportError('the satlisa that is installed')")
    picture(40, 30).save(tmp_path / "sat.jpg")
    question = ["--image", "sat.jpg", "--prompt", "What land cover type is this?", "--max_new_tokens", "4"]
    script = [str(out / "inference.py"), "--model_dir", str(out)]
    asked = python(*script, *question, cwd=tmp_path, pythonpath=other.parent)
    card = text_of(published(demo_run, with_code=True), "README.md")
    snippet = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[2]
    short = snippet.replace('is this?")', 'is this?", max_new_tokens=4)')
    hub = f"import huggingface_hub\nhuggingface_hub.snapshot_download = lambda repo: {str(out)!r}\n"
    assert asked.strip() and python("-c", hub + short, cwd=tmp_path, pythonpath=other.parent) == asked
