"""What is asked about a scene, whether it can be done, and what is found."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pyproj import CRS
from pyproj.exceptions import CRSError

from satlisa.config import DEFAULT_MAX_NEW_TOKENS
from satlisa.errors import SatlisaError
from satlisa.geo import features as shapes
from satlisa.geo.answers import logit
from satlisa.geo.features import Feature
from satlisa.geo.grid import Window, make_grid
from satlisa.geo.places import LON_LAT
from satlisa.geo.quicklook import picture_format
from satlisa.geo.scene import Scene
from satlisa.geo.styles import style_paths
from satlisa.geo.vector_files import driver_of
from satlisa.runtime.locations import check_writable

KINDS = ("auto", "mask", "objects")


@dataclass(frozen=True)
class Request:
    """What is asked about a scene; the fields are the keyword arguments of `segment_scene`."""

    prompt: str
    output_mask: Path | None = None
    output_probability: Path | None = None
    output_vectors: Path | None = None
    overlay: Path | None = None
    style: bool = False
    window: int = 512
    overlap: int = 64
    threshold: float = 0.5
    kind: str = "auto"
    min_area: float = 0.0
    simplify: float = 0.0
    output_crs: str | None = None
    batch_size: int = 4
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
    resume: bool = False
    model_key: str = ""

    @property
    def outputs(self) -> list[Path]:
        """The files to write."""
        paths = (self.output_mask, self.output_probability, self.output_vectors, self.overlay)
        return [path for path in paths if path is not None]

    @property
    def styled(self) -> list[Path]:
        """The outputs that have a style."""
        return [path for path in self.outputs if path != self.overlay]


@dataclass
class SceneResult:
    """What was found.

    Attributes:
        counts: number of windows by answer, the most frequent first.
        windows: of each window with data, its place and answer.
        num_masks: number of `<SEG>` in all answers, 0 where most answers to a question about other things have none;
            with 0 there is no mask, and features are windows.
        features: polygons in `crs`; for text one for each window.
        crs: of the features; None: pixels, or the units of the scene's transform.
        written: files.
    """

    counts: dict[str, int] = field(default_factory=dict)
    windows: list[tuple[Window, str]] = field(default_factory=list)
    num_masks: int = 0
    features: list[Feature] = field(default_factory=list)
    crs: CRS | None = None
    written: list[Path] = field(default_factory=list)


def check(request: Request, scene: Scene) -> None:
    """Refuse what cannot be done, before a model is asked.

    Raises:
        SatlisaError: an option out of its range, or an output that does not fit the scene or cannot be written.
    """
    _check_numbers(request)
    logit(request.threshold)
    if request.kind not in KINDS:
        raise SatlisaError(f"kind: expected {', '.join(KINDS)}, found '{request.kind}'")
    if not request.prompt.strip():
        raise SatlisaError("prompt: expected text, found nothing")
    for path in (request.output_mask, request.output_probability):
        if path is not None and path.suffix.lower() not in (".tif", ".tiff"):
            raise SatlisaError(f"{path}: masks and probabilities of scenes are GeoTIFFs; name a .tif file")
    if request.overlay is not None:
        picture_format(request.overlay)
    styles = style_paths(request.styled) if request.style else []
    check_places([*request.outputs, *styles], scene.path)
    vector_crs(request, scene)
    make_grid(scene.area[3], scene.area[2], request.window, request.overlap, scene.pixel_scale)


def _check_numbers(request: Request) -> None:
    for name in ("window", "overlap", "batch_size", "max_new_tokens"):
        value, least = getattr(request, name), int(name != "overlap")
        if not isinstance(value, int) or value < least:
            raise SatlisaError(f"--{name}: expected a whole number from {least}, found {value!r}")
    for name in ("threshold", "min_area", "simplify"):
        value = getattr(request, name)
        if not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise SatlisaError(f"--{name}: expected 0 or more, found {value!r}")


def check_places(outputs: Sequence[Path], scene: Path) -> None:
    """Refuse outputs that are folders, one another, or the scene itself, and folders that take no files.

    Raises:
        SatlisaError: one of them.
    """
    taken = {os.path.realpath(scene)}
    for path in outputs:
        if path.is_dir():
            raise SatlisaError(f"{path} is a folder; name a file in it")
        if os.path.realpath(path) in taken:
            raise SatlisaError(f"{path} is the file of --image or of another output too; name another one")
        taken.add(os.path.realpath(path))
        check_writable(path.parent, str(path))


def vector_crs(request: Request, scene: Scene) -> CRS | None:
    """The CRS of the vectors; None for a scene without one.

    Raises:
        SatlisaError: an output CRS that is none, or that the scene or the format cannot have.
    """
    driver = driver_of(request.output_vectors) if request.output_vectors else ""
    if request.output_crs is not None and scene.crs is None:
        raise SatlisaError(f"--output_crs: {scene.path} has no CRS, so nothing can be brought into another one")
    try:
        asked = CRS.from_user_input(request.output_crs) if request.output_crs is not None else None
    except CRSError as error:
        raise SatlisaError(f"--output_crs: '{request.output_crs}' is no CRS; give for example EPSG:32645") from error
    if asked is not None and not (asked.is_projected or asked.is_geographic):
        raise SatlisaError(f"--output_crs: {asked.name} is {asked.type_name}; name one of maps, for example EPSG:32645")
    if driver != "GeoJSON" or scene.crs is None:
        return asked or scene.crs
    if asked is not None and not shapes.is_lon_lat(asked):
        raise SatlisaError(
            "--output_crs: GeoJSON is in longitude and latitude (RFC 7946); leave it out, or name a .gpkg"
        )
    return LON_LAT
