"""Windows → answers, batch by batch: what the journal holds first, then the model, while the next batch is read."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from satlisa.geo.answers import Ask, Encoder, to_answer
from satlisa.geo.grid import Grid, Window
from satlisa.geo.journal import Entry, Journal
from satlisa.geo.scene import Scene, View

Progress = Callable[[int, int], None]
"""Takes the number of finished windows and of all."""


def answer_windows(
    scene: Scene,
    grid: Grid,
    ask: Ask,
    journal: Journal,
    *,
    level: float,
    batch_size: int,
    progress: Progress | None = None,
) -> Iterator[tuple[Window, Entry]]:
    """Each window in the grid's order, where it has data, and its answer; None where it has none.

    Batches always hold the same windows, so that an answer does not depend on where a run was interrupted.
    """
    windows = grid.windows
    batches = [windows[start : start + batch_size] for start in range(0, len(windows), batch_size)]
    encoder = Encoder((grid.rows.window, grid.columns.window), scene.to_grid, level)
    done = 0
    if progress:
        progress(0, len(windows))
    for entries in journal.replay():
        yield from zip(batches[done], entries, strict=True)
        done += 1
        if progress:
            progress(min(done * batch_size, len(windows)), len(windows))
    for batch, views in zip(batches[done:], _read_ahead(scene, batches[done:]), strict=True):
        entries = _answer(views, ask, encoder)
        journal.append(entries)
        done += 1
        yield from zip(batch, entries, strict=True)
        if progress:
            progress(min(done * batch_size, len(windows)), len(windows))


def _answer(views: Sequence[View], ask: Ask, encoder: Encoder) -> list[Entry]:
    """Ask about the windows that have data; the others cost nothing."""
    shown = [view.picture for view in views if view.valid.any()]
    replies = iter(ask(shown, encoder) if shown else ())
    return [(view.valid, to_answer(next(replies)) if view.valid.any() else None) for view in views]


def _read_ahead(scene: Scene, batches: Iterable[Sequence[Window]]) -> Iterator[list[View]]:
    """Read the next batch in a thread, which GDAL and NumPy leave to run beside the model."""

    def read(batch: Sequence[Window]) -> list[View]:
        return [scene.read(window.left, window.top, window.width, window.height) for window in batch]

    with ThreadPoolExecutor(1, thread_name_prefix="scene") as pool:
        waiting = None
        for batch in batches:
            following = pool.submit(read, batch)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()
