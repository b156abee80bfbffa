"""What happens on the page: functions of its events, each with the session's answer as argument.

A `SatlisaError` becomes a message on the page; of any other error the page says only that it happened,
and the log what.
"""

import html
import logging
import time
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import gradio as gr

from satlisa.cli.common import one_line
from satlisa.data.synthetic.painter import paint
from satlisa.data.synthetic.plan import Plan
from satlisa.data.synthetic.rows import scene_seeds
from satlisa.errors import SatlisaError
from satlisa.geometry.overlay import fit_within
from satlisa.inference.api import remarks
from satlisa.web.asking import Asker
from satlisa.web.drawing import draw, object_at, rows
from satlisa.web.found import LONGEST, Found, keep
from satlisa.web.limits import Limits
from satlisa.web.picture import Picture, read_picture

logger = logging.getLogger(__name__)

_SEEDS = 16  # scenes to choose from
_SIDE = 512  # pixels of an example
_CLASSES = ("Industrial area", "Airport", "Residential area", "Farmland")  # an example of each, with objects


class Page:
    """The events of a page.

    Attributes:
        scenes: files of pictures to begin with. They lie beside `folder`, whose files are deleted after a while, as the
            downloads are.
    """

    def __init__(self, asker: Asker, limits: Limits, folder: Path) -> None:
        self._asker, self._limits, self._folder = asker, limits, folder
        self.scenes = [str(path) for path in self._draw_scenes()]

    def choose(self, event: gr.SelectData) -> str:
        """Take a drawn scene as the picture."""
        return self.scenes[int(event.index)]

    def open(self, file: str | None) -> tuple[Any, ...]:
        """Show a picture that was chosen, and forget the answer about the one before: picture, state, text, rows,
        status, whether there can be a GeoTIFF."""
        if file is None:
            return None, None, "", [], "", gr.update(interactive=False)
        picture = self._read(file)
        is_placed = gr.update(interactive=picture.place is not None)
        return fit_within(picture.opened.rgb, LONGEST), None, "", [], _describe(picture), is_placed

    def ask(self, file: str | None, prompt: str, opacity: float) -> Iterator[tuple[Any, ...]]:
        """The answer as it grows: picture, state, text, rows, status, whether it can be stopped."""
        if file is None:
            raise SatlisaError("there is no picture; drop one into the field, or pick a scene")
        picture, started = self._read(file), time.monotonic()
        stream = self._asker.ask(picture, prompt or "")
        shown = fit_within(picture.opened.rgb, LONGEST)
        yield shown, None, "", [], "Reading the picture …", gr.update(interactive=True)
        status: Any = "Answering …"
        try:
            while True:
                text = next(stream)
                yield gr.skip(), None, text, gr.skip(), status, gr.skip()
                status = gr.skip()  # once: an update on its way when Stop is pressed would hide "Stopped."
        except StopIteration as end:
            answer = end.value
        found = keep(picture, prompt.strip(), answer)
        notes = remarks(answer, picture.opened.rgb.size, self._asker.input_size)
        status = _status(found, time.monotonic() - started, notes)
        yield draw(found, opacity), found, answer.text, rows(found), status, gr.update(interactive=False)

    def redraw(self, found: Found | None, opacity: float) -> Any:
        """The picture at another opacity."""
        return gr.skip() if found is None else draw(found, opacity)

    def click_row(self, found: Found | None, opacity: float, event: gr.SelectData) -> Any:
        """Hide the object of a row of the table, or show it."""
        number = int(event.row_value[1]) - 1  # not the row's place: a reader may sort the table
        return self._toggle(found, number if found and 0 <= number < len(found.objects) else None, opacity)

    def click_picture(self, found: Found | None, opacity: float, event: gr.SelectData) -> Any:
        """Hide the object under the pointer, or show it."""
        return self._toggle(found, object_at(found, *event.index) if found else None, opacity)

    def save(self, write: Callable[[Found, Path], Path], found: Found | None) -> str:
        """Write a file of the visible objects."""
        if found is None or not found.objects:
            raise SatlisaError("there is no mask to save; ask for one first, such as “Segment the buildings”")
        return str(write(found, Path(mkdtemp(dir=self._folder))))

    def _toggle(self, found: Found | None, number: int | None, opacity: float) -> Any:
        if found is None or number is None:
            return gr.skip(), gr.skip(), gr.skip()
        found = found.toggle(number)
        return draw(found, opacity), found, rows(found)

    def _draw_scenes(self) -> Iterator[Path]:
        """Scenes of the demo's test split, in files."""
        plans = [plan for plan in map(Plan, scene_seeds("test", _SEEDS)) if len(plan.objects) > 1]
        folder = self._folder.parent / "scenes"
        folder.mkdir(exist_ok=True)
        for name in _CLASSES:
            plan = next(plan for plan in plans if plan.scene_class == name)
            path = folder / f"{name.lower().replace(' ', '_')}.png"
            paint(plan, _SIDE).save(path)
            yield path

    def _read(self, file: str) -> Picture:
        return read_picture(Path(file), self._limits)


def said(event: Callable[..., Any]) -> Callable[..., Any]:
    """The event with its errors as messages on the page."""

    @wraps(event)
    def run(*arguments: Any) -> Any:
        try:
            return event(*arguments)
        except Exception as error:
            raise _message(error) from error

    return run


def said_growing(event: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """`said` for an event that gives its result in steps."""

    @wraps(event)
    def run(*arguments: Any) -> Iterator[Any]:
        try:
            yield from event(*arguments)
        except Exception as error:
            raise _message(error) from error

    return run


def _message(error: Exception) -> gr.Error:
    if isinstance(error, SatlisaError):
        return gr.Error(html.escape(one_line(str(error))), print_exception=False)
    logger.error("an event of the page failed", exc_info=error)
    return gr.Error("This failed; the log of the page's server says why.", print_exception=False)


def _describe(picture: Picture) -> str:
    """One line about a picture that was opened."""
    width, height = picture.opened.rgb.size
    place = picture.place
    if place is None:
        return f"{width:,} × {height:,} pixels"
    crs = place.ground.crs
    authority = crs.to_authority() if crs is not None else None
    return f"{width:,} × {height:,} pixels, on the map in {':'.join(authority) if authority else 'its own CRS'}"


def _status(found: Found, seconds: float, notes: list[str]) -> str:
    """One line about an answer: its objects, the time, and doubts."""
    count = len(found.objects)
    objects = "no mask" if count == 0 else "1 object" if count == 1 else f"{count} objects"
    return ". ".join([f"{objects}, {seconds:.1f} s", *(note[0].upper() + note[1:] for note in notes)])
