"""Image cells of base64, of archives, in lists, and with the paths of Windows."""

import base64
import json
import zipfile
from pathlib import Path
from typing import Any

import datasets
import pytest

from satlisa.data import image_cells
from satlisa.data.dataset import load_rows
from satlisa.data.image_cells import decode_base64, unpack
from satlisa.data.rows import read_sample
from satlisa.data.sample import RowError
from tests.helpers.dataset_fixtures import make_row, png

pytestmark = pytest.mark.usefixtures("no_network")
COLOR = (1, 2, 3)
TEXT = base64.b64encode(png(COLOR)).decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "set" / "tiles").mkdir(parents=True)
    (tmp_path / "set" / "tiles" / "a.png").write_bytes(png(COLOR))
    (tmp_path / "secret.png").write_bytes(png())
    for place in (tmp_path / "set", tmp_path):
        with zipfile.ZipFile(place / "all.zip", "w") as archive:
            archive.writestr("in/a.png", png(COLOR))
    return tmp_path / "set"


def load(folder: Path, *images: Any) -> Any:
    (folder / "train.jsonl").write_text("\n".join(json.dumps(make_row(image=image)) for image in images))
    return load_rows(str(folder), "train")


@pytest.mark.parametrize(
    "cell",
    [
        TEXT,
        f"data:image/png;base64,{TEXT}",
        "\n".join(TEXT[start : start + 76] for start in range(0, len(TEXT), 76)),
        {"bytes": TEXT, "path": None},
        {"bytes": None, "path": f"data:image/png;base64,{TEXT}"},
        ["tiles/a.png"],
        [TEXT],
        "tiles\\a.png",
        ".\\tiles\\a.png",
        "zip://in/a.png::SET/all.zip",
    ],
)
def test_cells_that_are_read(cell: Any, folder: Path) -> None:
    cell = cell.replace("SET", str(folder)) if isinstance(cell, str) else cell
    assert read_sample(load(folder, cell)[0], 0).image.getpixel((0, 0)) == COLOR


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (["tiles/a.png", "tiles/a.png"], "holds 2 images; a row is about one image"),
        ({"bytes": "/etc/passwd", "path": None}, "`bytes` that are text"),
        ({"bytes": "tiles/a.png", "path": None}, "`bytes` that are text"),
        ("..\\secret.png", "leads outside the dataset's folder"),
        ("zip://in/a.png::SET/../all.zip", "leads outside the dataset's folder"),
        ("zip://in/b.png::SET/all.zip", "cannot be read from its archive"),
        ("zip://in/a.png::https://h.co/all.zip", "is an address"),
        ("zip://in/a.png::zip://x.zip::SET/all.zip", "is an address"),
        (base64.b64encode(b"\x89PNG" + bytes(60)).decode(), "cannot be read"),
    ],
)
def test_cells_that_are_refused(cell: Any, reason: str, folder: Path) -> None:
    cell = cell.replace("SET", str(folder)) if isinstance(cell, str) else cell
    with pytest.raises(RowError, match="row 7: `image` ") as caught:
        read_sample(load(folder, cell)[0], 7)
    assert reason in str(caught.value) and len(str(caught.value)) < 400


def test_rows_that_are_not_loaded_from_a_dataset() -> None:
    assert read_sample(make_row(image=[TEXT]), 0).image.getpixel((0, 0)) == COLOR
    with pytest.raises(RowError, match="`image` holds 2 images"):
        read_sample(make_row(image=[TEXT, TEXT]), 0)


def test_names_are_not_base64() -> None:
    for name in ("tiles/a.png", "a" * 100, "data:image/png;base64,x", "data:text/plain,abc", ""):
        assert decode_base64(name) is None and unpack(name) == name


def test_a_file_that_unpacks_to_too_much(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_cells, "MOST_BYTES", 10)
    with pytest.raises(RowError, match="is larger than 10 bytes"):
        read_sample(load(folder, f"zip://in/a.png::{folder}/all.zip")[0], 0)


def test_columns_of_image_lists(folder: Path) -> None:
    rows = [make_row(image=[{"bytes": png(COLOR), "path": None}]) for _ in range(2)]
    table = datasets.Dataset.from_list(rows).cast_column("image", datasets.List(datasets.Image()))
    table.save_to_disk(str(folder / "saved"))
    found = load_rows(str(folder / "saved"), "train")
    assert read_sample(found[1], 1).image.getpixel((0, 0)) == COLOR
