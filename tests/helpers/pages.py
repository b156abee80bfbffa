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


def found_of(masks: Any, *, name: str = "sat.png", orientation: int = 1, place: Any = None) -> Any:
    """What a session keeps of an answer with these masks (N, H, W) about a grey picture."""
    import numpy as np
    from PIL import Image

    from satlisa.data.images import Opened
    from satlisa.inference.generation import Answer
    from satlisa.web.found import keep
    from satlisa.web.picture import Picture

    masks = np.asarray(masks, dtype=bool)
    opened = Opened(Image.new("RGB", masks.shape[2:0:-1], (90, 90, 90)), orientation)
    scores = np.linspace(0.9, 0.5, len(masks), dtype=np.float32)
    text = "Found" + " <SEG>" * len(masks)
    return keep(Picture(name, opened, place), "Segment", Answer(text, masks, scores, [1] * len(masks)))
