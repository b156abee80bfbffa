"""A scene and a prompt → a mask, objects on the map, and an answer for each window.

windows ─► answers (journal) ─► blended rows ─► COG
                  └────────────► objects ─► polygons ─► areas, projection ─► vector file
"""

import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine

from satlisa.data.conversations import asks_for_masks
from satlisa.errors import SatlisaError, first_line
from satlisa.geo import features as shapes
from satlisa.geo.answering import Progress, answer_windows
from satlisa.geo.answers import Ask, WindowAnswer, logit, model_asker
from satlisa.geo.grid import Grid, Window, make_grid
from satlisa.geo.journal import Journal
from satlisa.geo.places import Ground, at
from satlisa.geo.quicklook import quicklook, save_picture
from satlisa.geo.raster_files import FULL, NODATA, RowFile, write_cog
from satlisa.geo.request import Request, SceneResult, check, vector_crs
from satlisa.geo.scene import CACHE, Scene, open_scene
from satlisa.geo.stitch import Stitcher
from satlisa.geo.styles import style_paths, write_mask_style, write_probability_style, write_vector_style
from satlisa.geo.vector_files import driver_of, write_vectors
from satlisa.runtime.fingerprint import Identity
from satlisa.runtime.lock import exclusive_lock

logger = logging.getLogger(__name__)

WORK = ".satlisa-windows"  # ending of the folder with the journal, beside the first output


def segment_scene(
    model: Any,
    scene: Scene | str | Path,
    prompt: str,
    *,
    output_mask: str | Path | None = None,
    output_probability: str | Path | None = None,
    output_vectors: str | Path | None = None,
    overlay: str | Path | None = None,
    ask: Ask | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> SceneResult:
    """Ask a prompt about every window of a scene; masks are stitched, objects joined.

    Args:
        model: a loaded model; None with `ask`.
        scene: opened, or a path.
        output_mask: COG of the scene's own grid: 1 in the mask, 0 beside it, 255 without data.
        output_probability: COG of the blended probability, 0 to 254 for 0 to 1, 255 without data.
        output_vectors: .gpkg, .geojson, .fgb or .shp.
        overlay: picture of the scene with its mask, at most 2048 pixels on a side.
        ask: answers pictures in place of the model.
        progress: called with the number of finished windows and of all.
        options: style (write QGIS styles beside the outputs), window, overlap (pixels of the picture), threshold
            (probability), kind ("mask": polygons of the stitched mask; "objects": a feature per object; "auto": objects
            where any answer has several `<SEG>`), min_area (m²), simplify (metres), output_crs, batch_size,
            max_new_tokens, resume, model_key (names the model, so that only the same one resumes).

    Raises:
        SatlisaError: an option or output that does not fit, a damaged file, or a journal of another run.
    """
    paths = {
        "output_mask": output_mask,
        "output_probability": output_probability,
        "output_vectors": output_vectors,
        "overlay": overlay,
    }
    places: dict[str, Any] = {name: Path(path).expanduser() if path else None for name, path in paths.items()}
    try:
        request = Request(prompt, **places, **options)
    except TypeError as error:
        raise SatlisaError(f"segment_scene: {error}; its options are {', '.join(Request.__annotations__)}") from error
    opened = scene if isinstance(scene, Scene) else open_scene(scene)
    check(request, opened)
    return run(ask or model_asker(model, prompt, request.max_new_tokens), opened, request, progress)


def ask_scene(model: Any, scene: Scene | str | Path, prompt: str, **options: Any) -> SceneResult:
    """Ask a question about every window of a scene: a map of answers. Windows do not overlap unless that is asked for.

    Args and errors are those of `segment_scene`.
    """
    return segment_scene(model, scene, prompt, **{"overlap": 0, **options})


def run(ask: Ask, scene: Scene, request: Request, progress: Progress | None = None) -> SceneResult:
    """Answer a request that was checked; an interrupted run leaves its journal for `resume`."""
    with rasterio.Env(**CACHE), _work_folder(request) as folder:
        return _Run(scene, request, folder).run(ask, progress)


@contextmanager
def _work_folder(request: Request) -> Iterator[Path]:
    """The folder of the journal, locked, and removed at the end; an interrupted run keeps it."""
    if not request.outputs:
        with tempfile.TemporaryDirectory(prefix="satlisa-") as name:
            yield Path(name)
        return
    first = request.outputs[0]
    folder = first.with_name(first.name + WORK)
    with exclusive_lock(folder, str(first)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SatlisaError(f"{folder}: cannot be written ({first_line(error)}); name a file elsewhere") from error
        yield folder
        shutil.rmtree(folder)


class _Run:
    """One pass over a scene."""

    def __init__(self, scene: Scene, request: Request, folder: Path) -> None:
        self.scene, self.request, self.folder = scene, request, folder
        column, row, width, height = scene.area
        self.corner = (column, row)
        self.grid: Grid = make_grid(height, width, request.window, request.overlap, scene.pixel_scale)
        a, b, _, d, e, _ = tuple(scene.transform)[:6]
        x, y = at(scene.transform, column, row)
        self.transform = Affine(a, b, x, d, e, y)
        self.result = SceneResult(crs=vector_crs(request, scene))
        self.answered: list[tuple[Window, WindowAnswer]] = []
        self.level = logit(request.threshold)

    def run(self, ask: Ask, progress: Progress | None) -> SceneResult:
        """Answer, stitch, write."""
        with Journal(self.folder / "journal", self._identity(), resume=self.request.resume) as journal:
            self._stitch(ask, journal, progress)
        texts = [answer.text for _, answer in self.answered]
        self.result.counts = dict(Counter(texts).most_common())
        self.result.windows = [(window, answer.text) for window, answer in self.answered]
        self.result.num_masks = 0 if self._is_in_words() else sum(answer.num_segs for _, answer in self.answered)
        self._make_features()
        if self.result.num_masks or not self.answered:
            self._write_rasters()
        if self.request.overlay is not None:
            mask = self.folder / "mask.tif" if self.result.num_masks else None
            save_picture(quicklook(self.scene, mask), self.request.overlay)
            self.result.written.append(self.request.overlay)
        if self.request.style:
            self._write_styles()
        return self.result

    def _stitch(self, ask: Ask, journal: Journal, progress: Progress | None) -> None:
        scene, request, (_, _, width, height) = self.scene, self.request, self.scene.area
        probability = RowFile(self.folder / "probability.tif", height, width) if request.output_probability else None
        with RowFile(self.folder / "mask.tif", height, width) as mask, probability or nullcontext():
            stitcher = Stitcher(self.grid, lambda *rows: self._write_rows(mask, probability, *rows))
            for window, (valid, answer) in answer_windows(
                scene, self.grid, ask, journal, level=self.level, batch_size=request.batch_size, progress=progress
            ):
                stitcher.add(window, valid, answer)
                if answer is not None:
                    light = None if answer.levels is None else np.empty((0, 0), dtype=np.int8)
                    self.answered.append((window, WindowAnswer(answer.text, answer.num_segs, light, answer.pieces)))
            stitcher.finish()

    def _write_rows(
        self, mask: RowFile, probability: RowFile | None, top: int, margins: np.ndarray, valid: np.ndarray
    ) -> None:
        is_last = top + len(margins) == self.grid.rows.length
        mask.write(np.where(valid, margins > 0, NODATA).astype(np.uint8), is_last=is_last)
        if probability is not None:
            shares = np.rint(FULL / (1 + np.exp(-margins - np.float32(self.level))))
            probability.write(np.where(valid, shares, NODATA).astype(np.uint8), is_last=is_last)

    def _write_rasters(self) -> None:
        tags = {
            "SATLISA_PROMPT": self.request.prompt,
            "SATLISA_CLASSES": {"0": "other", "1": self._class_name()},
            "SATLISA_ANSWERS": self.result.counts,
        }
        for path, name, is_mask in (
            (self.request.output_mask, "mask.tif", True),
            (self.request.output_probability, "probability.tif", False),
        ):
            if path is not None:
                write_cog(self.folder / name, path, self.scene.raster_crs, self.transform, tags, is_mask=is_mask)
                self.result.written.append(path)

    def _class_name(self) -> str:
        """What the masks are of: the most frequent answer with masks, without its `<SEG>`."""
        texts = Counter(answer.text for _, answer in self.answered if answer.num_segs)
        most = next(iter(dict(texts.most_common(1))), "")
        text = " ".join(most.replace("<SEG>", " ").split())
        return text.strip(" :;,.") or self.request.prompt

    def _is_in_words(self) -> bool:
        """Whether the question asks for no mask, and most windows are answered without one."""
        request = self.request
        if request.kind != "auto" or request.output_mask or request.output_probability:
            return False
        num_masked = sum(answer.num_segs > 0 for _, answer in self.answered)
        return not asks_for_masks(request.prompt) and 2 * num_masked < len(self.answered)

    def _make_features(self) -> None:
        request, ground = self.request, Ground(self.scene.crs, self.scene.transform)
        several = any(answer.num_segs > 1 for _, answer in self.answered)
        if not self.result.num_masks:
            found = shapes.window_features(self.answered)
        elif request.kind == "objects" or (request.kind == "auto" and several):
            found = shapes.object_features(self.grid, self.answered)
        else:
            found = shapes.mask_features(self.folder / "mask.tif", self.grid, self.answered)
        has_masks = self.result.num_masks > 0
        placed = shapes.place(
            found,
            ground,
            self.corner,
            output_crs=self.result.crs,
            in_degrees=request.output_vectors is not None and driver_of(request.output_vectors) == "GeoJSON",
            min_area=request.min_area if has_masks else 0.0,
            simplify=request.simplify if has_masks else 0.0,
        )
        self.result.features = list(placed)
        if request.output_vectors is not None:
            changed = self.scene.path.stat().st_mtime
            write_vectors(
                request.output_vectors,
                self.result.features,
                request.prompt,
                crs=self.result.crs,
                changed=changed,
                corner=self.corner,
                folder=self.folder,
            )
            self.result.written.append(request.output_vectors)

    def _write_styles(self) -> None:
        result = self.result
        for path, style in zip(self.request.styled, style_paths(self.request.styled), strict=True):
            if path not in result.written:
                continue
            if path == self.request.output_vectors:
                write_vector_style(style, list(result.counts), by_answer=not result.num_masks)
            elif path == self.request.output_mask:
                write_mask_style(style, self._class_name())
            else:
                write_probability_style(style)
            result.written.append(style)

    def _identity(self) -> Identity:
        """What answers depend on; vectors and their options may change."""
        scene, request = self.scene, self.request
        state = scene.path.stat()
        names: Sequence[str] = ("prompt", "window", "overlap", "threshold", "batch_size", "max_new_tokens", "model_key")
        return {name: getattr(request, name) for name in names} | {
            "scene": [str(scene.path.resolve()), state.st_size, state.st_mtime_ns],
            "bands": [list(scene.bands.shown), scene.bands.alpha],
            "stretch": scene.ends.tolist(),
            "area": list(scene.area),
            "pixel_scale": list(scene.pixel_scale),
        }
