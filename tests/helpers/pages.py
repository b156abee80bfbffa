"""A served page of a tiny model, and a browser to open it in."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

MASKS = 3  # that the model answers with: as many as the page lets it


@pytest.fixture(scope="session")
def served(model_dirs: dict[str, Path]) -> Iterator[Any]:
    """A running page; `served.local_url` is its address."""
    pytest.importorskip("gradio", reason="the page needs gradio: bash setup.sh --web")
    from satlisa.inference.api import load_model
    from satlisa.web.limits import Limits
    from satlisa.web.serving import serve

    limits = Limits(megabytes=1, megapixels=0.5, max_new_tokens=MASKS)
    page = serve(load_model(model_dirs["masks"], "cpu"), limits, wait=False)
    yield page
    page.close(verbose=False)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium of the system."""
    driver = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    with driver.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()
