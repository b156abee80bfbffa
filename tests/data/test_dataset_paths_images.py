"""Rows whose images lie elsewhere: each is refused for itself, and nothing is fetched."""

import json
import os
from pathlib import Path
from typing import Any, ClassVar

import datasets
import huggingface_hub
import pytest

from satlisa.data.dataset import COLUMNS, load_rows
from satlisa.data.dataset_paths import ImagePaths, open_builder
from satlisa.data.rows import read_sample
from satlisa.data.sample import RowError
from satlisa.errors import SatlisaError
from tests.helpers.dataset_fixtures import as_dataset, edit, make_row, png

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """A dataset of JSON lines with one image in it, and one beside it."""
    (tmp_path / "set" / "tiles").mkdir(parents=True)
    (tmp_path / "set" / "tiles" / "a.png").write_bytes(png((1, 2, 3)))
    (tmp_path / "secret.png").write_bytes(png((9, 9, 9)))
    (tmp_path / "set" / "tiles" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "set" / "tiles" / "inner.png").symlink_to("a.png")
    (tmp_path / "set" / "circle.png").symlink_to("circle.png")
    return tmp_path / "set"


def write_rows(folder: Path, images: list[Any]) -> Any:
    (folder / "train.jsonl").write_text("\n".join(json.dumps(make_row(image=image)) for image in images))
    return load_rows(str(folder), "train")


FORMS = [lambda path: path, lambda path: {"bytes": None, "path": path}]


@pytest.mark.parametrize("form", FORMS)
def test_images_inside_are_read(form: Any, tiles: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # relative paths begin at the dataset, wherever one is
    names = ["tiles/a.png", "./tiles/../tiles/a.png", "tiles/inner.png", str(tiles / "tiles" / "a.png")]
    rows = write_rows(tiles, [form(name) for name in names])
    for index in range(len(names)):
        assert read_sample(rows[index], index).image.getpixel((0, 0)) == (1, 2, 3)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "name",
    ["../secret.png", "/SECRET/secret.png", "tiles/../../secret.png", "tiles/link.png", "/etc/passwd", "/dev/zero"],
)
def test_images_elsewhere_are_refused(form: Any, name: str, tiles: Path) -> None:
    name = name.replace("/SECRET", str(tiles.parent))
    rows = write_rows(tiles, [form(name), form("tiles/a.png")])
    with pytest.raises(RowError) as caught:
        read_sample(rows[0], 7)
    assert str(caught.value) == f"row 7: `image` path {name!r} leads outside the dataset's folder"
    read_sample(rows[1], 1)  # the others are as good as before


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "name",
    [
        *("http://h.co/a.png", "https://h.co/a.png", "ftp://h.co/a.png", "s3://b/a.png", "hf://datasets/o/n/a.png"),
        *(
            "zip://a.png::tiles/x.zip",
            "tiles/x.zip::https://h.co/a.zip",
            "file:///etc/passwd",
            "data:image/png;base64,xx",
        ),
    ],
)
def test_addresses_are_never_fetched(form: Any, name: str, tiles: Path, no_network: list[Any]) -> None:
    rows = write_rows(tiles, [form(name)])
    with pytest.raises(RowError, match=r"row 0: `image` path .* is an address, and nothing is fetched") as caught:
        read_sample(rows[0], 0)
    assert repr(name) in str(caught.value) and not no_network


def test_a_token_in_an_address_is_not_shown(tiles: Path) -> None:
    token = "hf_" + "Ab1" * 11
    rows = write_rows(tiles, [f"https://me:pass@h.co/a.png?token={token}"])
    with pytest.raises(RowError, match=r"path 'https://\*\*\*@h\.co/a\.png\?token=\*\*\*' is an address"):
        read_sample(rows[0], 0)


@pytest.mark.parametrize("name", ["a\0b.png", "circle.png", "x" * 5000])
def test_paths_that_are_none(name: str, tiles: Path) -> None:
    rows = write_rows(tiles, [name])
    with pytest.raises(RowError, match="row 0: `image` ") as caught:
        read_sample(rows[0], 0)
    assert len(str(caught.value)) < 400


def test_bytes_go_first_and_their_path_is_a_name(tiles: Path) -> None:
    rows = as_dataset(1).map(lambda row: {"image": {"bytes": png((4, 5, 6)), "path": "../secret.png"}})
    rows.save_to_disk(str(tiles / "saved"))
    found = load_rows(str(tiles / "saved"), "train")
    assert read_sample(found[0], 0).image.getpixel((0, 0)) == (4, 5, 6)


@pytest.mark.parametrize("kind", ["parquet", "saved"])
def test_image_columns_of_datasets(kind: str, tiles: Path) -> None:
    """The `Image` type, with paths in place of bytes."""
    places = (tiles.parent / "secret.png", tiles / "tiles" / "a.png")
    columns = {name: datasets.Value("string") for name in COLUMNS}
    cells = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    table = datasets.Dataset.from_list(
        [make_row(image={"bytes": None, "path": str(place)}) for place in places],
        features=datasets.Features({**columns, "image": cells}),
    )
    if kind == "parquet":
        table.to_parquet(tiles / "train.parquet")
    else:
        table.save_to_disk(str(tiles))  # of real `Image` columns it would put the bytes in
        features = json.loads((tiles / "dataset_info.json").read_text())["features"]
        edit(tiles / "dataset_info.json", features={**features, "image": {"_type": "Image"}})
    found = load_rows(str(tiles), "train")
    with pytest.raises(RowError, match=r"secret\.png' leads outside the dataset's folder"):
        read_sample(found[0], 0)
    assert read_sample(found[1], 1).image.getpixel((0, 0)) == (1, 2, 3)


def test_columns_without_images_are_left_alone(tiles: Path) -> None:
    rows = write_rows(tiles, ["../x.png"] * 3)
    assert list(rows["task"]) == ["building_segmentation"] * 3
    assert ImagePaths.of("set", tiles)({"task": ["a"]}) == {"task": ["a"]}


# The hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "hub" / "datasets--o--n" / "blobs").mkdir(parents=True)
    return tmp_path / "hub"


def test_images_of_the_hub_lie_in_what_was_downloaded(hub: Path, tmp_path: Path) -> None:
    paths = ImagePaths.of("o/n", None)
    cached, extracted = hub / "datasets--o--n" / "blobs" / "a", tmp_path / "cache" / "downloads" / "b.png"
    for path in (cached, extracted):
        assert paths.check({"bytes": None, "path": str(path)}) == {"bytes": None, "path": str(path)}
    for path, reason in [
        (hub / "datasets--other--n" / "blobs" / "a", "leads outside what was downloaded"),
        (hub / "datasets--o--n" / ".." / "token", "leads outside what was downloaded"),
        ("/etc/passwd", "leads outside what was downloaded"),
        ("tiles/a.png", "comes without bytes"),
        ("https://h.co/a.png", "is an address"),
    ]:
        assert reason in paths.check({"bytes": None, "path": str(path)})["refused"]
    assert paths.check({"bytes": b"x", "path": "/etc/passwd"}) == {"bytes": b"x", "path": "/etc/passwd"}


@pytest.mark.parametrize(
    ("name", "fine"),
    [
        ("hf://datasets/o/n@abc/data/x.parquet", True),
        ("hf://datasets/o/other@abc/data/x.parquet", False),
        ("hf://datasets/o/nn@abc/x.parquet", False),
        ("https://h.co/x.parquet", False),
        ("/etc/passwd", False),
    ],
)
def test_data_files_of_the_hub_are_its_own(name: str, fine: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Builder:
        class config:  # noqa: N801
            data_files: ClassVar = {"train": [name]}

    monkeypatch.setattr(datasets, "load_dataset_builder", lambda _: Builder)
    if fine:
        assert open_builder("o/n", None) is Builder
    else:
        with pytest.raises(SatlisaError, match=r"dataset o/n: .* is not one of its own files"):
            open_builder("o/n", None)


def test_streams_are_checked_alike(tiles: Path) -> None:
    """For those who read a dataset row by row: the same builder, the same rule for images."""
    write_rows(tiles, ["tiles/a.png", "../secret.png"])
    stream = open_builder(str(tiles), tiles).as_streaming_dataset(split="train")
    rows = list(stream.map(ImagePaths.of(str(tiles), tiles), batched=True))
    assert read_sample(rows[0], 0).image.getpixel((0, 0)) == (1, 2, 3)
    with pytest.raises(RowError, match="leads outside"):
        read_sample(rows[1], 1)
    assert os.path.isabs(rows[0]["image"]["path"])
