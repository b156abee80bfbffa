"""The page: its parts, and which event each of them starts.

A session keeps its last answer (`Found`) in Gradio's state; sliders, clicks and downloads work from it, and the
model is asked by one event alone, one answer at a time.
"""

from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from satlisa.web import downloads
from satlisa.web.asking import Asker
from satlisa.web.drawing import HEADERS
from satlisa.web.events import Page, said, said_growing
from satlisa.web.limits import LONGEST_QUESTION, Limits
from satlisa.web.picture import SUFFIXES, has_geo

QUESTIONS = [
    "Detect and segment all structures",
    "Segment the buildings",
    "Describe this satellite image",
    "Classify this satellite image",
    "What objects are visible?",
    "Is there flooding visible?",
]
OPACITY = 0.4
_SAVE = "() => { document.querySelector('#save').click(); }"
CSS = """
.gradio-container { max-width: 1240px !important; margin: 0 auto !important; }
#title h1 { margin: 0 0 0.2rem; }
#examples, #examples .grid-wrap { height: auto !important; min-height: 0 !important; overflow: hidden; }
#examples .grid-container { grid-template-columns: repeat(4, minmax(0, 1fr)) !important; padding-top: 1.6rem; }
#examples .thumbnail-item { aspect-ratio: 1; }
#picture img { max-height: 65vh; cursor: pointer; }
#objects { --text-md: 0.875rem; font-size: 0.875rem; contain: inline-size; }
#objects .body-cell, #objects .header-cell { font-family: var(--font); font-size: 0.875rem; }
#objects .cell-menu-button { display: none; }
#objects .body-cell { cursor: pointer; font-variant-numeric: tabular-nums; }
#save { display: none; }
"""


def build_page(asker: Asker, limits: Limits, folder: Path) -> gr.Blocks:
    """Make the page.

    Args:
        folder: Gradio's cache (`satlisa.web.serving`); drawn scenes lie beside it, where they are not deleted.
    """
    page = Page(asker, limits, folder)
    with gr.Blocks(analytics_enabled=False, title="satlisa", fill_width=True) as blocks:
        gr.Markdown(
            "# satlisa\nAsk about a satellite image. Answers are text, and masks where objects are. "
            f"A picture has up to {limits.megabytes} MB and {limits.megapixels:g} million pixels, and is deleted after "
            f"{limits.minutes} minutes.",
            elem_id="title",
        )
        state = gr.State(None, time_to_live=limits.minutes * 60)
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                asking = _Asking(limits, page.scenes)
            with gr.Column(scale=3, min_width=280):
                result = _Result()
        _connect(page, asking, result, state)
    blocks.queue(max_size=limits.queue, default_concurrency_limit=1)
    return blocks


class _Asking:
    """The column with the picture's file and the question."""

    def __init__(self, limits: Limits, scenes: list[str]) -> None:
        kinds = "GeoTIFF, TIFF, PNG, JPEG" if has_geo() else "PNG, JPEG, TIFF"
        label = f"Picture ({kinds})"
        self.file = gr.File(label=label, file_types=SUFFIXES, height=130, elem_id="file")
        self.examples = gr.Gallery(
            scenes, label="or a drawn scene", columns=4, height="auto", allow_preview=False, interactive=False,
            buttons=[], object_fit="cover", elem_id="examples",
        )  # fmt: skip
        self.prompt = gr.Textbox(
            QUESTIONS[0], label="Question", lines=1, max_lines=4, max_length=LONGEST_QUESTION, elem_id="question"
        )
        self.questions = gr.Dataset(
            components=[self.prompt], samples=[[text] for text in QUESTIONS], label="or one of these", type="values",
            layout="gallery", elem_id="questions",
        )  # fmt: skip
        with gr.Row():
            self.ask = gr.Button("Ask", variant="primary", elem_id="ask", min_width=120)
            self.stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="stop", min_width=80)


class _Result:
    """The column with the picture, the answer and the objects."""

    def __init__(self) -> None:
        self.picture = gr.Image(
            label="Picture and masks", show_label=False, type="pil", format="png", interactive=False, elem_id="picture",
            buttons=["download", "fullscreen"],
        )  # fmt: skip
        self.answer = gr.Textbox(label="Answer", lines=2, max_lines=8, interactive=False, elem_id="answer")
        self.status = gr.Markdown("", elem_id="status")
        self.opacity = gr.Slider(0, 1, OPACITY, step=0.05, label="Opacity of the masks", elem_id="opacity")
        self.objects = gr.Dataframe(
            headers=HEADERS, datatype=["html", "str", "str", "str", "str"], interactive=False, elem_id="objects",
            label="Objects (click a row, or the object in the picture, to hide or show it)", max_height=260,
            column_widths=["12%", "22%", "19%", "24%", "23%"], buttons=[],
        )  # fmt: skip
        with gr.Row(elem_id="downloads"):
            self.png = gr.Button("PNG mask", size="sm", elem_id="png", min_width=80)
            self.geojson = gr.Button("GeoJSON", size="sm", elem_id="geojson", min_width=80)
            self.geotiff = gr.Button(
                "GeoTIFF", size="sm", elem_id="geotiff", min_width=80, visible=has_geo(), interactive=False
            )
        self.file = gr.DownloadButton("Save", elem_id="save")


def _connect(page: Page, asking: _Asking, result: _Result, state: gr.State) -> None:
    shown = [result.picture, state, result.answer, result.objects, result.status]
    private: dict[str, Any] = {"api_visibility": "private"}
    asking.file.change(said(page.open), asking.file, [*shown, result.geotiff], **private)
    asking.examples.select(page.choose, None, asking.file, **private)
    asking.questions.click(lambda sample: sample[0], asking.questions, asking.prompt, **private)
    running = gr.on(
        [asking.ask.click, asking.prompt.submit],
        said_growing(page.ask),
        [asking.file, asking.prompt, result.opacity],
        [*shown, asking.stop],
        api_name="ask",
        concurrency_limit=1,
        show_progress="minimal",
        show_progress_on=result.answer,
    )
    running.failure(lambda: ("", gr.update(interactive=False)), None, [result.status, asking.stop], **private)
    asking.stop.click(
        lambda: ("Stopped.", gr.update(interactive=False)), None, [result.status, asking.stop], cancels=[running],
        queue=False, **private,
    )  # fmt: skip
    result.opacity.change(
        said(page.redraw), [state, result.opacity], result.picture, trigger_mode="always_last", show_progress="hidden",
        **private,
    )  # fmt: skip
    clicked = [result.picture, state, result.objects]
    for part, event in ((result.objects, page.click_row), (result.picture, page.click_picture)):
        part.select(said(event), [state, result.opacity], clicked, show_progress="hidden", **private)
    for button, write in (
        (result.png, downloads.write_png),
        (result.geojson, downloads.write_geojson),
        (result.geotiff, downloads.write_geotiff),
    ):
        saved = button.click(said(partial(page.save, write)), state, result.file, **private)
        saved.success(None, js=_SAVE, **private)
