"""The page as its readers use it: in headless Chromium, and by two clients at once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from satlisa.inference.api import ask
from tests.helpers.inference_fixtures import command
from tests.helpers.model_fixtures import picture
from tests.helpers.pages import MASKS

pytestmark = pytest.mark.integration
WAIT = 60_000  # milliseconds


class Tab:
    """The page in a tab with a session of its own."""

    def __init__(self, browser: Any, url: str) -> None:
        self._context = browser.new_context(accept_downloads=True, viewport={"width": 390, "height": 844})
        self.page = self._context.new_page()
        self.hosts: set[str] = set()
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        self.page.goto(url)
        self.page.wait_for_selector("#ask", timeout=WAIT)

    def close(self) -> None:
        self._context.close()

    def upload(self, path: Path) -> None:
        self.page.set_input_files("#file input[type=file]", path)

    def ask(self, prompt: str) -> str:
        """The answer's text, once it is complete."""
        self.page.fill("#question textarea", prompt)
        self.page.click("#ask")
        self.wait_for(r"\d s")
        return str(self.page.input_value("#answer textarea"))

    def wait_for(self, status: str) -> None:
        self.page.wait_for_function(
            f"() => /{status}/.test(document.querySelector('#status')?.innerText || '')", timeout=WAIT
        )

    def download(self, button: str, path: Path) -> Path:
        with self.page.expect_download(timeout=WAIT) as waiting:
            self.page.click(button)
        waiting.value.save_as(path)
        return path

    def marks(self) -> list[str]:
        """Of each row of the table whether its object is shown."""
        return list(self.page.locator("#objects [data-testid^=cell-] span[title]").all_inner_texts())

    def toggle(self, row: int) -> None:
        before = self.marks()
        self.page.click(f"#objects [data-testid=cell-{row}-2]")
        for _ in range(100):
            if self.marks() != before:
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"the row did not change: {before}")

    def message(self) -> str:
        """The newest message on the page."""
        toast = self.page.locator("[data-testid=toast-body]").last
        toast.wait_for(timeout=WAIT)
        return str(toast.inner_text())


@pytest.fixture
def tab(browser: Any, served: Any) -> Iterator[Tab]:
    opened = Tab(browser, served.local_url)
    yield opened
    opened.close()


def test_a_mask_from_the_page_is_that_of_the_command(
    tab: Tab, image_file: Path, model_dirs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tab.upload(image_file)
    tab.wait_for("50 × 40 pixels")
    text = tab.ask("Segment")
    shown = np.asarray(Image.open(tab.download("#png", tmp_path / "page.png")))
    capsys.readouterr()
    command(
        *("--model_dir", model_dirs["masks"], "--image", image_file, "--prompt", "Segment", "--device", "cpu"),
        *("--max_new_tokens", MASKS, "--output_mask", tmp_path / "command.png"),
        *("--output_instances", tmp_path / "instances"),
    )
    expected = np.asarray(Image.open(tmp_path / "command.png"))
    parts = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "instances").iterdir())]
    assert text == capsys.readouterr().out.rstrip("\n") and len(parts) == MASKS
    assert 0 < expected.mean() < 255 and np.array_equal(shown, expected)
    assert tab.marks() == ["■"] * MASKS

    tab.toggle(0)
    assert tab.marks() == ["☐", *["■"] * (MASKS - 1)]
    rest = np.asarray(Image.open(tab.download("#png", tmp_path / "rest.png")))
    assert np.array_equal(rest, np.maximum.reduce(parts[1:]))
    tab.toggle(0)
    assert tab.marks() == ["■"] * MASKS
    assert tab.hosts == {urlsplit(tab.page.url).netloc}
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_drawing_asks_the_model_nothing(
    tab: Tab, image_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab.upload(image_file)
    tab.wait_for("50 × 40 pixels")
    tab.ask("Segment")
    monkeypatch.setattr("satlisa.web.asking.stream_ask", lambda *_: pytest.fail("the model was asked"))
    picture = tab.page.locator("#picture img")
    before, text = picture.get_attribute("src"), tab.page.input_value("#answer textarea")
    tab.page.fill("#opacity input[type=number]", "0.9")
    tab.page.press("#opacity input[type=number]", "Tab")
    tab.page.wait_for_function("old => document.querySelector('#picture img').src !== old", arg=before, timeout=WAIT)
    row, column = np.argwhere(np.asarray(Image.open(tab.download("#png", tmp_path / "mask.png"))))[0] + 0.5
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    tab.page.mouse.click(box["x"] + column * box["width"] / 50, box["y"] + row * box["height"] / 40)
    tab.page.wait_for_function("() => document.querySelector('#objects').innerText.includes('☐')", timeout=WAIT)
    assert tab.page.input_value("#answer textarea") == text


def test_sessions_know_nothing_of_each_other(tab: Tab, browser: Any, image_file: Path) -> None:
    tab.upload(image_file)
    tab.ask("Segment")
    other = Tab(browser, tab.page.url)
    assert other.marks() == []
    other.page.click("#png")
    assert "there is no mask to save" in other.message()
    other.close()


def test_mistakes_are_messages(tab: Tab, tmp_path: Path) -> None:
    tab.page.click("#ask")
    assert "there is no picture" in tab.message()
    (tmp_path / "broken.png").write_bytes(b"hello")
    tab.upload(tmp_path / "broken.png")
    tab.page.get_by_text("broken.png is not an image").wait_for(timeout=WAIT)
    Image.new("L", (1000, 1000)).save(tmp_path / "large.png")
    tab.page.reload()
    tab.upload(tmp_path / "large.png")
    said = tab.message()
    assert "large.png has 1,000 × 1,000 pixels, and this page takes at most 0.5 million" in said
    assert "/" not in said and "Traceback" not in said


def test_an_answer_can_be_stopped(tab: Tab, image_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = Event()

    def endless(*_: Any) -> Iterator[str]:
        try:
            for count in range(10_000):
                yield f"word number {count} of an answer without end"
                ended.wait(0.05)
        finally:
            ended.set()

    tab.upload(image_file)
    tab.wait_for("50 × 40 pixels")
    with monkeypatch.context() as patch:
        patch.setattr("satlisa.web.asking.stream_ask", endless)
        tab.page.click("#ask")
        tab.page.wait_for_function("() => document.querySelector('#answer textarea').value.length > 20", timeout=WAIT)
        tab.page.click("#stop")
        tab.wait_for("Stopped")
        assert ended.wait(20)
    assert "<SEG>" in tab.ask("Segment")


def test_two_users_at_once_get_their_own_answers(served: Any, model_dirs: dict[str, Path], tmp_path: Path) -> None:
    from gradio_client import Client, handle_file

    from satlisa.inference.api import load_model

    paths = [tmp_path / f"{width}.png" for width in (50, 64)]
    for path in paths:
        picture(int(path.stem), 40).save(path)

    def rows(path: Path) -> list[list[str]]:
        client = Client(served.local_url, verbose=False)
        try:
            found = client.predict(handle_file(path), "Segment", 0.4, api_name="/ask")
            return [row[2:4] for row in found[2]["data"]]
        finally:
            client.close()

    with ThreadPoolExecutor(4) as pool:
        several = list(pool.map(rows, paths * 2))
    model = load_model(model_dirs["masks"], "cpu")
    for path, found in zip(paths * 2, several, strict=True):
        alone = ask(model, path, "Segment", MASKS)
        sizes = [f"{mask.sum():,}" for mask in alone.masks]
        assert found == [[f"{score:.2f}", size] for score, size in zip(alone.scores, sizes, strict=True)]
    assert several[0] != several[1]


def test_the_server_is_of_this_machine_alone(served: Any) -> None:
    assert served.server_name == "127.0.0.1" and served.share_url is None and served.analytics_enabled is False
    assert "fonts.googleapis" not in served.theme_css and served.allowed_paths == []
