"""A picture of a scene with its mask on it, small enough to look at."""

from pathlib import Path

from PIL import Image
from rasterio.enums import Resampling

from satlisa.errors import SatlisaError, first_line
from satlisa.geo.raster_files import quiet_open
from satlisa.geo.scene import Scene
from satlisa.geometry.overlay import overlay
from satlisa.runtime.atomic_files import atomic_replace

LONGEST = 2048  # pixels


def quicklook(scene: Scene, mask_file: Path | None, longest: int = LONGEST) -> Image.Image:
    """The scene's area, upright, with at most `longest` pixels on a side.

    Args:
        mask_file: its mask; None for the scene alone.
    """
    picture = scene.thumbnail(longest).picture
    if mask_file is None:
        return picture
    with quiet_open(mask_file) as dataset:
        mask = dataset.read(1, out_shape=(picture.height, picture.width), resampling=Resampling.mode) == 1
    return overlay(picture, scene.to_grid(mask)[None])


def picture_format(path: Path) -> str:
    """The format of a picture's suffix, as Pillow names it.

    Raises:
        SatlisaError: pictures are not written in it.
    """
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in Image.SAVE:
        raise SatlisaError(f"--overlay: {path}: pictures are not written as '{path.suffix}'; name a .png file")
    return str(kind)


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture in the format of its suffix, atomically.

    Raises:
        SatlisaError: no such format, or the disk does not take it.
    """
    kind = picture_format(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_replace(path, lambda temporary: picture.save(temporary, kind))
    except OSError as error:
        raise SatlisaError(f"{path}: cannot be written ({first_line(error)}); name a file elsewhere") from error
