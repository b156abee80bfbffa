import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from satlisa.errors import SatlisaError
from satlisa.web import __main__ as command
from satlisa.web.limits import Limits
from satlisa.web.space import write_space


def test_the_folder_is_a_space(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "space"
    assert command.main(["--model_dir", "owner/name", "--space", str(out), "--megabytes", "7"]) == 0
    assert "hf upload" in capsys.readouterr().out
    header = (out / "README.md").read_text(encoding="utf-8").split("---")[1]
    fields = dict(re.findall(r"^(\w+): (.+)$", header, re.MULTILINE))
    assert fields["sdk"] == "gradio" and fields["app_file"] == "app.py" and fields["python_version"] == '"3.12"'
    assert re.fullmatch(r"6\.\d+\.\d+", fields["sdk_version"]) and "- owner/name" in header
    assert "megabytes=7" in (out / "app.py").read_text(encoding="utf-8")
    requirements = (out / "requirements.txt").read_text(encoding="utf-8")
    assert all(re.search(rf"^{name}\W", requirements, re.MULTILINE) for name in ("torch", "rasterio", "gradio"))
    assert (out / "satlisa" / "model_config.json").is_file() and not list(out.rglob("__pycache__"))
    for path in out.rglob("*"):
        if path.suffix in (".py", ".txt", ".md", ".json"):
            assert str(tmp_path) not in path.read_text(encoding="utf-8")


def test_a_space_needs_a_hub_id(tmp_path: Path) -> None:
    for model in (str(tmp_path), "name", "/no/such/folder"):
        with pytest.raises(SatlisaError, match="a Space loads its model from the hub; publish the folder first"):
            write_space(tmp_path / "space", model, Limits())
    assert not (tmp_path / "space").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SatlisaError, match="exists already and is not empty"):
        write_space(tmp_path, "owner/name", Limits())
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.integration
def test_its_app_starts_offline(tmp_path: Path, model_dirs: dict[str, Path]) -> None:
    """By its own copy of the package, from its own folder; the port is a free one here."""
    pytest.importorskip("gradio", reason="the page needs gradio: bash setup.sh --web")
    write_space(tmp_path / "space", "owner/name", Limits())
    code = """
import sys, satlisa, app
from satlisa.web import serving
app.serve = lambda model, limits, host, port: print(host, port, serving.serve(model, limits, wait=False).local_url)
app.MODEL_ID = sys.argv[1]
app.main()
print(satlisa.__file__)
"""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code, str(model_dirs["masks"])],
        cwd=tmp_path / "space",
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("0.0.0.0 7860 http://127.0.0.1:") and second.startswith(str(tmp_path / "space"))
