"""`inference.py` with a scene: options, checks and outputs. The folder `geo` is imported once a scene comes."""

import argparse
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

from satlisa.errors import SatlisaError
from satlisa.runtime.locations import existing_folder
from satlisa.runtime.signals import Interrupted, raise_on_signal

_RASTERS = (".tif", ".tiff", ".vrt", ".jp2", ".img")
_OPTIONS = (
    "bands", "stretch", "window", "overlap", "bbox", "resolution", "min_area", "simplify", "output_crs", "threshold",
    "objects", "batch_size", "output_probability", "output_vectors", "style", "resume",
)  # fmt: skip
_PASSED = (
    "window", "overlap", "threshold", "min_area", "simplify", "output_crs", "batch_size", "max_new_tokens", "resume",
)  # fmt: skip
_OUTPUTS = {"output_mask": ".tif", "output_probability": ".tif", "output_vectors": ".gpkg", "overlay": ".png"}
_SHOWN = 20  # answers in the summary
_NO_MASK = "No answer holds a <SEG>, so there is no mask"


def add_scene_options(parser: argparse.ArgumentParser) -> None:
    """The options of scenes, in a group of their own."""
    group = parser.add_argument_group(
        "scenes", "GeoTIFFs of any size, a folder or a pattern; needs bash setup.sh --geo"
    )
    path: dict[str, Any] = {"type": os.path.expanduser, "metavar": "FILE"}
    group.add_argument("--output_vectors", **path, help="write objects or answers (.gpkg, .geojson, .fgb, .shp)")
    group.add_argument("--output_probability", **path, help="write the blended probability as a GeoTIFF")
    group.add_argument("--style", action="store_true", help="write QGIS styles (.qml) beside the outputs")
    group.add_argument("--bands", type=_bands, help="one or three bands, e.g. 4,3,2 (default: red, green, blue)")
    group.add_argument("--stretch", help="percent (default: 2,98), none, min,max or fixed:LOW,HIGH; of the whole scene")
    group.add_argument("--window", type=int, help="pixels of a window (default: 512)")
    group.add_argument("--overlap", type=int, help="pixels by which windows overlap (default: 64)")
    group.add_argument("--bbox", type=_box, help="left,bottom,right,top in the scene's CRS or longitude, latitude")
    group.add_argument("--resolution", type=_above_zero, help="metres per pixel to work at (default: the scene's own)")
    group.add_argument("--threshold", type=float, help="probability above which a pixel is in the mask (default: 0.5)")
    group.add_argument(
        "--objects",
        choices=("auto", "yes", "no"),
        help="one feature per object, or per part of the mask (default: auto)",
    )
    group.add_argument("--min_area", type=float, help="leave out features smaller than this (m²)")
    group.add_argument("--simplify", type=float, help="simplify outlines by this much (m)")
    group.add_argument("--output_crs", help="projection of the vectors, e.g. EPSG:4326 (default: the scene's own)")
    group.add_argument(
        "--batch_size", type=int, help="windows (default: 4), or questions of a table (default: 8), answered together"
    )
    group.add_argument("--resume", action="store_true", default=None, help="continue an interrupted run")


def given_scene_options(options: argparse.Namespace) -> list[str]:
    """The names of the options of scenes that the call has."""
    return [name for name in _OPTIONS if getattr(options, name) not in (None, False)]


def is_scene(options: argparse.Namespace) -> bool:
    """Whether the call is about scenes: an option of scenes, several files, or a georeferenced raster.

    Raises:
        SatlisaError: it is, and rasterio is not installed; or an option does not go with scenes.
    """
    path, mask = Path(options.image), options.output_mask
    asked = next((f"--{name}" for name in given_scene_options(options)), "")
    if not asked and (path.is_dir() or any(sign in path.name for sign in "*?[")) and not path.is_file():
        asked = f"--image {options.image}"
    if find_spec("rasterio") is None:
        if asked:
            raise SatlisaError(f"{asked} needs rasterio, which is not installed: bash setup.sh --geo")
        return False
    is_map = bool(asked) or (
        path.suffix.lower() in _RASTERS
        and path.is_file()
        and not options.output_instances
        and (mask is None or Path(mask).suffix.lower() in (".tif", ".tiff"))
        and _lies_on_ground(path)
    )
    if is_map and options.output_instances:
        raise SatlisaError(f"--output_instances is for single pictures, {asked} for scenes; use --output_vectors")
    return is_map


def _lies_on_ground(path: Path) -> bool:
    from satlisa.geo.scene import is_georeferenced

    return is_georeferenced(path)


def run_scenes(options: argparse.Namespace) -> int:
    """Answer a scene, or every scene of a folder or pattern; returns the exit code, 130 and 143 after a signal."""
    from satlisa.geo.batch import find_scenes

    scenes = find_scenes(options.image)
    try:
        return _run_one(options, Path(options.image)) if scenes is None else _run_many(options, scenes)
    except Interrupted as stopped:
        stays = any(getattr(options, name) for name in _OUTPUTS)  # else there is no journal
        print(f"{stopped}; --resume continues the run" if stays else stopped, file=sys.stderr)
        return 128 + stopped.number


def _run_one(options: argparse.Namespace, path: Path) -> int:
    from satlisa.geo.request import check

    request = _request(options, {name: Path(value) for name in _OUTPUTS if (value := getattr(options, name))})
    scene = _open(options, path)
    check(request, scene)
    ask, key = _load(options)
    with tqdm(total=1, unit="window", disable=None) as bar:
        result = _answer(ask, scene, replace(request, model_key=key), partial(_show, bar))
    print(_summary(result))
    if _lacks_mask(result, request):
        print(f"{_NO_MASK}; only the answers were written." if result.written else _NO_MASK + ".", file=sys.stderr)
        return 1
    return 0


def _run_many(options: argparse.Namespace, paths: Sequence[Path]) -> int:
    """All files with one model; errors are named, and the others go on. 1 where a file failed."""
    from satlisa.geo.batch import Done, run_all, stat_of
    from satlisa.geo.request import check_places

    requests = {path: _request(options, _places(options, path)) for path in paths}
    for path, request in requests.items():
        check_places(request.outputs, path)
    folders = [output.parent for output in requests[paths[0]].outputs]
    ask, key = _load(options)
    done = Done.read(folders[0], resume=bool(options.resume)) if folders else None
    counts: Counter[str] = Counter()
    skipped: list[Path] = []
    maskless: list[Path] = []

    def work(path: Path) -> None:
        request = replace(requests[path], model_key=key)
        identity = {"request": str(replace(request, resume=False)), "view": _view_of(options), "file": stat_of(path)}
        if done is not None and done.holds(path, identity):
            skipped.append(path)
            return
        bar.set_postfix_str(path.name)
        result = _answer_again(ask, _open(options, path), request, partial(_show_part, bar, path.name))
        counts.update(result.counts)
        if _lacks_mask(result, request):
            maskless.append(path)
        if done is not None:
            done.add(path, identity, result.written)

    with tqdm(total=len(paths), unit="scene", disable=None) as bar:
        errors = run_all(paths, work, lambda _: bar.update())
    if len(skipped) + len(errors) < len(paths):
        print(_counted(counts))
    print(f"{len(paths)} scenes: {len(skipped)} done before, {len(errors)} failed", file=sys.stderr)
    for path in maskless:
        print(f"{path}: {_NO_MASK[0].lower()}{_NO_MASK[1:]}", file=sys.stderr)
    for path, error in errors.items():
        print(f"failed: {error if str(path) in error else f'{path}: {error}'}", file=sys.stderr)
    return 1 if errors else 0


def _answer(ask: Any, scene: Any, request: Any, progress: Callable[[int, int], None] | None) -> Any:
    from satlisa.geo.request import check
    from satlisa.geo.segment import run

    check(request, scene)
    with raise_on_signal():
        result = run(ask, scene, request, progress)
    for path in result.written:
        print(f"wrote {path}", file=sys.stderr)
    return result


def _answer_again(ask: Any, scene: Any, request: Any, progress: Callable[[int, int], None]) -> Any:
    """The same for one of several scenes: a journal of an earlier state of its file does not count."""
    from satlisa.geo.journal import OtherRunError

    try:
        return _answer(ask, scene, request, progress)
    except OtherRunError as error:
        print(f"{scene.path.name} starts over: {str(error).split(';')[0]}", file=sys.stderr)
        return _answer(ask, scene, replace(request, resume=False), progress)


def _lacks_mask(result: Any, request: Any) -> bool:
    """Whether a mask was asked for, and no window that has data was answered with one."""
    return bool(result.windows and not result.num_masks and (request.output_mask or request.output_probability))


def _request(options: argparse.Namespace, places: Mapping[str, Any]) -> Any:
    """What is asked, as `geo` takes it."""
    from satlisa.geo.request import Request

    given: dict[str, Any] = {name: value for name in _PASSED if (value := getattr(options, name)) is not None}
    kind = {"yes": "objects", "no": "mask"}.get(options.objects, "auto")
    return Request(options.prompt, kind=kind, style=options.style, **places, **given)


def _places(options: argparse.Namespace, scene: Path) -> dict[str, Path]:
    """The outputs of one of several scenes."""
    from satlisa.geo.batch import output_of

    given = {name: getattr(options, name) for name in _OUTPUTS if getattr(options, name)}
    return {name: output_of(Path(value), scene, _OUTPUTS[name], f"--{name}") for name, value in given.items()}


def _open(options: argparse.Namespace, path: Path) -> Any:
    from satlisa.geo.scene import open_scene

    return open_scene(path, **_view_of(options))


def _view_of(options: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("bands", "stretch", "bbox", "resolution")}


def _load(options: argparse.Namespace) -> tuple[Any, str]:
    """What answers pictures, and the fingerprint of the model's files."""
    from satlisa.geo.answers import model_asker
    from satlisa.inference.api import load_model
    from satlisa.pretrained.model_directory import fingerprint_model

    model = load_model(options.model_dir, options.device)
    folder = existing_folder(options.model_dir)
    key = fingerprint_model(folder) if folder else str(options.model_dir)
    return model_asker(model, options.prompt, options.max_new_tokens), key


def _show(bar: Any, done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)


def _show_part(bar: Any, name: str, done: int, total: int) -> None:
    bar.set_postfix_str(f"{name}: {done} of {total} windows")


def _summary(result: Any) -> str:
    """The answer, where there is one; else how many windows gave which."""
    if len(result.windows) == 1:
        return str(result.windows[0][1])
    found = f"\n{len(result.features)} features" if result.num_masks else ""
    return _counted(result.counts) + found


def _counted(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    lines = [f"{count} × {_collapse(text)}" for text, count in ordered[:_SHOWN]]
    if len(ordered) > _SHOWN:
        lines.append(f"… {len(ordered) - _SHOWN} more answers")
    return "\n".join(lines) or "no window holds data"


def _collapse(text: str) -> str:
    """An answer with its repeated `<SEG>` counted."""
    return re.sub(r"(?:<SEG>\s*){2,}", lambda found: f"<SEG> × {found[0].count('<SEG>')} ", text).strip()


def _bands(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected band numbers such as 4,3,2, found '{text}'") from error


def _box(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 4 or not all(map(math.isfinite, values)):
        raise argparse.ArgumentTypeError(f"expected left,bottom,right,top, found '{text}'")
    return values


def _above_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"expected a number above 0, found '{text}'")
    return value
