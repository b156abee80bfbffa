import os
import socket
from pathlib import Path

import pytest

from satlisa.errors import SatlisaError
from satlisa.web import __main__ as command
from satlisa.web.limits import Limits
from satlisa.web.serving import private_folder, serve, sweep


def test_the_page_has_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE", "GRADIO_ANALYTICS_ENABLED"):
        monkeypatch.setenv(name, "before")
    monkeypatch.setenv("GRADIO_ALLOWED_PATHS", "/")
    folder = private_folder()
    assert folder.is_dir() and folder.stat().st_mode & 0o077 == 0
    assert os.environ["GRADIO_TEMP_DIR"] == str(folder) and "GRADIO_ALLOWED_PATHS" not in os.environ


def test_what_sessions_leave_is_deleted_and_scenes_stay(tmp_path: Path) -> None:
    names = ("scene/a.png", "upload/b.png", "answer/c.png", "new/d.png")
    for name in names:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("x")
    for path in [*tmp_path.rglob("*")]:
        if "new" not in path.parts:
            os.utime(path, (0, 0))
    for _ in range(2):  # a folder that was emptied just now is new
        sweep(tmp_path, 60, {tmp_path / "scene", tmp_path / "scene/a.png"})
        for folder in ("upload", "answer"):
            if (tmp_path / folder).exists():
                os.utime(tmp_path / folder, (0, 0))
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert left == {"scene", "scene/a.png", "new", "new/d.png"}


@pytest.mark.integration
def test_a_taken_port(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio", reason="the page needs gradio: bash setup.sh --web")
    monkeypatch.setenv("GRADIO_TEMP_DIR", "restored afterwards")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SatlisaError, match=r"127.0.0.1 cannot be listened on .*; choose another --port"):
            serve(None, Limits(), port=taken.getsockname()[1], wait=False)


def test_without_gradio(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setattr(command, "find_spec", lambda _: None)
    assert command.main(["--model_dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        "python -m satlisa.web: the page needs gradio, which is not installed: bash setup.sh --web\n"
    )


def test_limits_are_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--model_dir", "owner/name", "--queue", "0"]) == 2
    assert "--queue: expected a number above 0, found 0" in capsys.readouterr().err
    options = command.parser().parse_args(["--model_dir", "m", "--megapixels", "2.5"])
    assert options.host == "127.0.0.1" and options.megapixels == 2.5 and not hasattr(options, "share")
