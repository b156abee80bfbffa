"""Image files: sizes, orientations, grids, names."""

from pathlib import Path

import pytest

from satlisa.convert.picture import STORED, UPRIGHT, ImageFinder, Picture, images_in, open_picture
from satlisa.data.images import open_oriented
from satlisa.errors import SatlisaError
from tests.helpers.converting import picture


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_headers_say_what_the_reader_of_rows_sees(tmp_path: Path, ending: str, orientation: int) -> None:
    path = picture(tmp_path / f"a.{ending}", (64, 48), orientation)
    found, opened = open_picture(path), open_oriented(path)
    assert (found.upright, found.orientation) == (opened.rgb.size, opened.orientation)
    assert found.content() == path.read_bytes()


def test_sizes_tell_the_grid() -> None:
    turned = Picture(Path("a.jpg"), (64, 48), 6)
    assert [turned.grid(size, "-") for size in ((64, 48), (48, 64), None)] == [STORED, UPRIGHT, "-"]
    assert Picture(Path("a.jpg"), (64, 64), 6).grid((64, 64), "-") == "-"
    with pytest.raises(ValueError, match="32 × 24 pixels, the image has 64 × 48"):
        turned.grid((32, 24), STORED)


def test_files_that_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"text")
    with pytest.raises(SatlisaError, match="not an image"):
        open_picture(tmp_path / "a.png")
    with pytest.raises(SatlisaError, match="no such image"):
        open_picture(tmp_path / "b.png")


def test_names_lead_to_files_in_the_folders_alone(tmp_path: Path) -> None:
    for name in ("in/a/x.png", "in/b/x.png", "in/b/y.PNG", "z.png", "in/.hidden.png"):
        picture(tmp_path / name)
    finder = ImageFinder(tmp_path / "in")
    assert finder.find("a/x.png") == tmp_path / "in" / "a" / "x.png"
    assert finder.find("C:\\old\\y.PNG") == tmp_path / "in" / "b" / "y.PNG"
    assert not finder.find("../z.png").exists() and not finder.find("c/x.png").exists()
    with pytest.raises(SatlisaError, match="expected one image of this name"):
        finder.find("x.png")
    assert [path.name for path in images_in(tmp_path / "in")] == ["x.png", "x.png", "y.PNG"]
