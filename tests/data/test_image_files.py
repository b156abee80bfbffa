"""What a folder or a pattern names."""

import logging
import os
from pathlib import Path

import pytest

from satlisa.data.image_files import find_images
from satlisa.errors import SatlisaError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files by name alone: nothing is opened here."""
    names = [
        "img10.jpg",
        "img2.JPG",
        "Img1.tif",
        "notes.txt",
        ".hidden.jpg",
        "results.jsonl",
        "b/img3.png",
        "a/c/x.webp",
    ]
    for name in names:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return Path("in")


def test_a_folder_gives_its_own_images_in_natural_order(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    expected = ["in/Img1.tif", "in/img2.JPG", "in/img10.jpg"]
    assert find_images("in") == find_images("in/") == find_images("./in") == expected
    assert "left out: 2 (notes.txt, results.jsonl)" in caplog.text and "3 images" in caplog.text


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("in/*", ["in/Img1.tif", "in/img2.JPG", "in/img10.jpg"]),
        ("in/*.jpg", ["in/img10.jpg"]),
        ("in/**/*", ["in/a/c/x.webp", "in/b/img3.png", "in/Img1.tif", "in/img2.JPG", "in/img10.jpg"]),
        ("in/**/*.png", ["in/b/img3.png"]),
        ("in/img[0-9].*", ["in/img2.JPG"]),
        ("in/notes.txt", ["in/notes.txt"]),  # named itself
    ],
)
def test_patterns(folder: Path, pattern: str, expected: list[str]) -> None:
    assert find_images(pattern) == expected


def test_a_file_may_have_the_signs_of_a_pattern_in_its_name(folder: Path) -> None:
    (folder / "photo[1].jpg").write_bytes(b"")
    assert find_images("in/photo[1].jpg") == ["in/photo[1].jpg"]


def test_files_that_are_no_input_are_left_out(folder: Path) -> None:
    os.symlink("img2.JPG", folder / "link.jpg")
    assert find_images("in", [Path("in/b/../img2.JPG"), Path("in/absent.jpg")]) == ["in/Img1.tif", "in/img10.jpg"]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("in/*.jp2", r"in/\*\.jp2: found no files that match the pattern .*nothing is there, seen from /.*\*\* goes"),
        ("in/*.txt", r"with the suffix of an image \(1 other files are there"),
        ("in/a", r"in/a: found no image files in it .*nothing is there"),
        ("in/absent", r"in/absent: no such file or folder; check the path, or give a pattern"),
    ],
)
def test_nothing_found_says_what_was_looked_for(folder: Path, image: str, words: str) -> None:
    with pytest.raises(SatlisaError, match=words):
        find_images(image)
