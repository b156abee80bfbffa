"""Serve a page: from a folder of its own, on this machine alone unless a host is named, without calls to anywhere."""

import atexit
import os
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from satlisa.errors import SatlisaError, first_line
from satlisa.web.limits import SESSIONS, Limits

LOCAL = "127.0.0.1"


def private_folder() -> Path:
    """A new folder for uploads, answers and downloads, which Gradio uses as its cache and which is deleted at exit.

    Gradio's own is shared by all of its pages on a machine.
    """
    root = Path(tempfile.mkdtemp(prefix="satlisa-web-")).resolve()
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    folder = root / "cache"
    folder.mkdir(mode=0o700)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_EXAMPLES_CACHE"] = str(folder / "examples")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.pop("GRADIO_ALLOWED_PATHS", None)  # would add folders of the machine
    return folder


def sweep(folder: Path, seconds: float, kept: set[Path]) -> None:
    """Delete what was written into a folder more than `seconds` ago, but for `kept`.

    Gradio's own `delete_cache` misses the pictures of events that give several.
    """
    before = time.time() - seconds
    for path in sorted(folder.rglob("*"), reverse=True):  # files before their folders
        with suppress(OSError):  # still in use, or a folder that is not empty
            if path not in kept and path.stat().st_mtime < before:
                path.rmdir() if path.is_dir() else path.unlink()


def _sweep_on(folder: Path, seconds: float, kept: set[Path]) -> None:
    while folder.is_dir():
        time.sleep(min(60, seconds))
        sweep(folder, seconds, kept)


def serve(model: Any, limits: Limits, host: str = LOCAL, port: int | None = None, *, wait: bool = True) -> Any:
    """Open the page of a model.

    Args:
        port: by default the first free one from 7860 on.
        wait: until Ctrl-C; False returns at once, with the running `gradio.Blocks`.

    Raises:
        SatlisaError: the port is taken.
    """
    folder = private_folder()
    import gradio as gr
    from starlette.middleware import Middleware

    from satlisa.web.app import CSS, build_page
    from satlisa.web.asking import Asker
    from satlisa.web.guard import Guard

    page = build_page(Asker(model, limits), limits, folder)
    cleaning = (folder, limits.minutes * 60, set(folder.rglob("*")))  # what is there now is the page's own
    threading.Thread(target=_sweep_on, args=cleaning, daemon=True).start()
    fonts = ["ui-sans-serif", "system-ui", "sans-serif"], ["ui-monospace", "monospace"]  # of the reader's system
    try:
        page.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=limits.bytes,
            state_session_capacity=SESSIONS,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            num_workers=0,
            app_kwargs={"middleware": [Middleware(Guard, folder=folder, limits=limits)], "docs_url": None},
            theme=gr.themes.Default(font=fonts[0], font_mono=fonts[1]),
            css=CSS,
        )
    except OSError as error:
        raise SatlisaError(f"{host} cannot be listened on ({first_line(error)}); choose another --port") from error
    if wait:
        print(f"the page is at {page.local_url} (Ctrl-C ends it)", flush=True)
        page.block_thread()
    return page
