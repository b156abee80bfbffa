"""DOTA and VOC → rows."""

from pathlib import Path

import pytest

from satlisa.errors import SatlisaError
from tests.helpers.converting import convert, drawn, picture, samples_of

VOC = """<annotation><filename>a.jpg</filename><size><width>64</width><height>48</height></size>
<object><name>ship</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>{xmax}</xmax><ymax>24</ymax></bndbox></object>
</annotation>"""


def write(folder: Path, text: str, ending: str = "xml", orientation: int = 1) -> tuple[Path, Path]:
    picture(folder / "images" / "a.jpg", (64, 48), orientation)
    (folder / "labels").mkdir(exist_ok=True)
    (folder / "labels" / f"a.{ending}").write_text(text)
    return folder / "labels", folder / "images"


def test_voc_counts_pixels_from_1(tmp_path: Path) -> None:
    convert("boxes", *write(tmp_path, VOC.format(xmax=32)), tmp_path / "out", "--split", "1")
    assert [sample.answer for sample in samples_of(tmp_path / "out")] == ["ship [0, 0, 500, 500]", "1 ship"]


def test_classes_with_boxes_alone_are_not_asked_for_masks(tmp_path: Path) -> None:
    labels, images = write(tmp_path, VOC.format(xmax=32))
    picture(images / "b.jpg", (64, 48))
    (labels / "b.xml").write_text(VOC.format(xmax=32).replace("ship", "plane").replace("a.jpg", "b.jpg"))
    convert("boxes", labels, images, tmp_path / "out", "--split", "1", "--negatives", "1")
    assert {sample.task for sample in samples_of(tmp_path / "out")} == {"object_detection"}


def test_voc_turns_with_its_image(tmp_path: Path) -> None:
    """The stored upper left quarter of an image that is turned clockwise is the upper right one."""
    convert("boxes", *write(tmp_path, VOC.format(xmax=32), orientation=6), tmp_path / "out", "--split", "1")
    assert samples_of(tmp_path / "out")[0].answer == "ship [500, 0, 1000, 500]"


def test_dota_has_four_corners(tmp_path: Path) -> None:
    lines = "imagesource:GoogleEarth\ngsd:0.1\n32 12 48 24 32 36 16 24 small-vehicle 1\n"
    convert("boxes", *write(tmp_path, lines, "txt"), tmp_path / "out", "--split", "1")
    samples = samples_of(tmp_path / "out")
    assert samples[2].answer == "small vehicle [250, 250, 750, 750]"
    mask = drawn(samples[1].regions[0], 64)
    assert mask[32, 32] and not mask[18, 18] and mask.sum() == pytest.approx(32 * 32 / 2, rel=0.05)


@pytest.mark.parametrize(
    ("text", "ending", "said"),
    [
        (VOC.format(xmax="nan"), "xml", "finite"),
        (VOC.format(xmax=""), "xml", "bndbox"),
        (VOC.format(xmax=-7), "xml", "x0 <= x1"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', "xml", "DTD"),
        ("<annotation>", "xml", "expected VOC's XML"),
        ("1 2 3 plane", "txt", "line 1"),
    ],
)
def test_malformed_files_are_errors(tmp_path: Path, text: str, ending: str, said: str) -> None:
    with pytest.raises(SatlisaError, match=said):
        convert("boxes", *write(tmp_path, text, ending), tmp_path / "out")
