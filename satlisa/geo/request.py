"""What is asked about a scene, whether it can be done, and what is found."""

import logging
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
from satlisa.geo.scene import Scene
from satlisa.geo.styles import style_paths
from satlisa.geo.vector_files import driver_of

logger = logging.getLogger(__name__)

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
        SatlisaError: an option out of its range, or an output that does not fit the scene.
    """
    logit(request.threshold)
    if request.kind not in KINDS:
        raise SatlisaError(f"kind: expected {', '.join(KINDS)}, found '{request.kind}'")
    for name in ("min_area", "simplify"):
        if getattr(request, name) < 0:
            raise SatlisaError(f"--{name}: expected 0 or more, found {getattr(request, name)}")
    if request.batch_size < 1:
        raise SatlisaError(f"batch_size: expected at least 1, found {request.batch_size}")
    if not request.prompt.strip():
        raise SatlisaError("prompt: expected text, found nothing")
    for path in (request.output_mask, request.output_probability):
        if path is not None and path.suffix.lower() not in (".tif", ".tiff"):
            raise SatlisaError(f"{path}: masks and probabilities of scenes are GeoTIFFs; name a .tif file")
    if request.style:
        style_paths(request.styled)
    vector_crs(request, scene)
    make_grid(scene.area[3], scene.area[2], request.window, request.overlap, scene.pixel_scale)


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
    if driver != "GeoJSON" or scene.crs is None:
        if driver == "GeoJSON":
            logger.warning("%s: GeoJSON means longitude and latitude, which %s does not have", "vectors", scene.path)
        return asked or scene.crs
    if asked is not None and not shapes.is_lon_lat(asked):
        raise SatlisaError(
            "--output_crs: GeoJSON is in longitude and latitude (RFC 7946); leave it out, or name a .gpkg"
        )
    return LON_LAT
