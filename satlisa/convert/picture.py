"""An image file: its bytes, its sizes as stored and upright, and on which of the two grids annotations are."""

import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from satlisa.convert.problems import Problems
from satlisa.data.images import open_oriented
from satlisa.data.rasters import check_pixels
from satlisa.errors import SatlisaError, first_line

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".jp2")
"""File names of images, lower case."""

STORED, UPRIGHT = "stored", "upright"
_ORIENTATION = 0x0112  # EXIF tag
Size = tuple[int, int]


@dataclass(frozen=True)
class Picture:
    """An image file.

    Attributes:
        path: the file; with `data`, only its name.
        stored: (width, height) of the pixel grid in the file.
        orientation: EXIF's, 1 to 8: how the stored grid is turned to be upright.
        data: encoded image that is in no file of its own, or what makes it.
    """

    path: Path
    stored: Size
    orientation: int = 1
    data: bytes | Callable[[], bytes] | None = None

    @property
    def upright(self) -> Size:
        """(width, height) as a person sees it; polygons and boxes of rows are fractions of these."""
        return self.stored[::-1] if self.orientation in (5, 6, 7, 8) else self.stored

    def content(self) -> bytes:
        """The encoded file."""
        if self.data is None:
            return self.path.read_bytes()
        return self.data if isinstance(self.data, bytes) else self.data()

    def grid(self, size: Size | None, default: str) -> str:
        """Which grid annotations are on, by the (width, height) that they name.

        Args:
            size: None where they name none.
            default: of the format, where both fit.

        Raises:
            ValueError: neither fits.
        """
        if size is None or (size == self.stored and size == self.upright):
            return default
        if size not in (self.stored, self.upright):
            found = "{} × {}".format(*self.stored)
            raise ValueError(f"the annotations are for {size[0]} × {size[1]} pixels, the image has {found}")
        return STORED if size == self.stored else UPRIGHT


def open_picture(path: Path, data: bytes | None = None) -> Picture:
    """Read the header of an image file.

    Raises:
        SatlisaError: no such file, no image, or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path if data is None else io.BytesIO(data)) as image:
                check_pixels(image.width, image.height, f"image {path}")
                if image.format == "EPS":
                    raise SatlisaError(f"image {path} is PostScript, which is not read; save it as PNG")
                # Pillow shows a TIFF upright itself, and says its size so.
                turned = 1 if image.format == "TIFF" else int(image.getexif().get(_ORIENTATION, 1))
                return Picture(path, image.size, turned if turned in range(1, 9) else 1, data)
    except FileNotFoundError as error:
        raise SatlisaError(f"{path}: no such image; check the path") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):  # a format that Pillow alone does not read
        opened = open_oriented(path if data is None else data)
        turned = opened.orientation
        size = opened.rgb.size
        return Picture(path, size[::-1] if turned in (5, 6, 7, 8) else size, turned, data)
    except Image.DecompressionBombError as error:
        raise SatlisaError(f"image {path} is too large ({first_line(error)}); cut it into windows") from error


def try_picture(path: Path, where: str, problems: Problems) -> Picture | None:
    """`open_picture`; a missing or broken file is a problem, and None."""
    try:
        return open_picture(path)
    except SatlisaError as error:
        missing = not path.exists()
        kind = "images without a file, left out" if missing else "images that cannot be read, left out"
        problems.add(kind, where if missing else f"{where} ({error})")
        return None


def images_in(folder: Path) -> Iterator[Path]:
    """The image files below a folder, by name; hidden ones are left out."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in ENDINGS and path.is_file() and not path.name.startswith("."):
            yield path


class ImageFinder:
    """Finds images by the names that annotations give them: below a folder, or anywhere in it if that is unique.

    The folders in a relative name must be those of the file, or images of two splits would be confused. Those of an
    absolute path, of another machine, do not count.

    Args:
        folders: where to look, the first one first.
    """

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self._by_name: dict[str, list[Path]] | None = None

    def find(self, name: str) -> Path:
        """The file; where there is none, the path at which it was expected.

        Raises:
            SatlisaError: several files of that name.
        """
        name = name.replace("\\", "/")
        for folder in self._folders:
            inside = (folder / name.lstrip("/")).resolve()
            if inside.is_file() and inside.is_relative_to(folder.resolve()):
                return folder / name.lstrip("/")
        if self._by_name is None:
            self._by_name = {}
            for path in sorted({path for folder in self._folders for path in images_in(folder)}):
                self._by_name.setdefault(path.name, []).append(path)
        parts = Path(name).parts
        parts = parts[-1:] if name.startswith("/") or name[1:2] == ":" else parts
        found = [path for path in self._by_name.get(parts[-1], []) if path.parts[-len(parts) :] == parts]
        if len(found) > 1:
            raise SatlisaError(f"{name}: expected one image of this name, found {found[0]} and {found[1]}")
        return found[0] if found else self._folders[0] / Path(name).name
