"""Datasets that point elsewhere: their settings, their files, their rows' images."""

import json
from pathlib import Path
from typing import Any

import pytest

from satlisa.data.dataset import load_rows
from satlisa.errors import SatlisaError
from tests.helpers.dataset_fixtures import as_dataset, edit, make_row, write_parquet, write_saved

pytestmark = pytest.mark.usefixtures("no_network")
SHARD = "train-00000-of-00001.parquet"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset, and a secret beside it."""
    write_parquet(tmp_path / "set", {"train": 2})
    write_parquet(tmp_path / "secret", {"train": 3})
    return tmp_path / "set"


def refusal(folder: Path, no_network: list[Any]) -> str:
    with pytest.raises(SatlisaError) as caught:
        load_rows(str(folder), "train")
    assert not no_network and "\n" not in str(caught.value)
    return str(caught.value)


# Settings


def card(folder: Path, data_files: Any, **more: Any) -> None:
    configs = {"configs": [{"config_name": "default", "data_files": data_files, **more}]}
    (folder / "README.md").write_text(f"---\n{json.dumps(configs)}\n---\n# A dataset\n")  # YAML takes JSON


OUTSIDE = [
    "https://example.com/x.parquet",
    "hf://datasets/owner/name/x.parquet",
    "s3://bucket/x.parquet",
    "file:///etc/passwd",
    "file:/etc/passwd",
    "zip://x.json::data/x.zip",
    "./x::https://example.com/x",
    "/SECRET/data/*.parquet",
    "../secret/data/*.parquet",
    "data/../../secret/data/*.parquet",
    "..\\secret\\x.parquet",
    "~/x.parquet",
    "C:\\x.parquet",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_data_files_elsewhere(name: str, folder: Path, no_network: list[Any]) -> None:
    name = name.replace("/SECRET", str(folder.parent / "secret"))
    card(folder, name)
    assert f"{folder}/README.md names {name!r}; expected a path inside the dataset's folder" in refusal(
        folder, no_network
    )


@pytest.mark.parametrize(
    "spelling", [["NAME"], [{"split": "train", "path": "NAME"}], [{"split": "train", "path": ["data/*", "NAME"]}]]
)
def test_every_spelling_of_data_files(spelling: Any, folder: Path, no_network: list[Any]) -> None:
    card(folder, json.loads(json.dumps(spelling).replace("NAME", "../secret/data/*")))
    assert "names '../secret/data/*'" in refusal(folder, no_network)


def test_a_data_dir_elsewhere(folder: Path, no_network: list[Any]) -> None:
    card(folder, None, data_dir="../secret")
    assert "names '../secret'" in refusal(folder, no_network)


def test_the_settings_beside_the_readme(folder: Path, no_network: list[Any]) -> None:
    card(folder, "data/*.parquet")
    (folder / ".huggingface.yaml").write_text(
        "configs:\n- config_name: default\n  data_files: ../secret/data/*.parquet\n"
    )
    assert ".huggingface.yaml names '../secret/data/*.parquet'" in refusal(folder, no_network)


def test_settings_that_stay_inside(folder: Path, no_network: list[Any]) -> None:
    card(folder, [{"split": "train", "path": "data/train-*"}, {"split": "test", "path": ["./data/*.parquet"]}])
    assert len(load_rows(str(folder), "test")) == 2 and not no_network


def test_a_loading_script_is_not_run(folder: Path, no_network: list[Any]) -> None:
    (folder / "set.py").write_text(f"import os; os.mkdir({str(folder / 'ran')!r})")
    assert "scripts are no longer supported" in refusal(folder, no_network)
    assert not (folder / "ran").exists()


def test_a_folder_named_like_a_reader(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` would take "json" for its own reader, of whatever lies in the current folder."""
    folder.rename(folder.parent / "json")
    monkeypatch.chdir(folder.parent)
    assert len(load_rows("json", "train")) == 2
    (folder.parent / "x.json").write_text(json.dumps(make_row(image="x.png")))
    (folder.parent / "json").rename(folder.parent / "other")
    with pytest.raises(SatlisaError, match="not one of its own files"):
        load_rows("json", "train")


# Links


def test_a_file_that_is_a_link_to_elsewhere(folder: Path, no_network: list[Any]) -> None:
    shard = folder / "data" / SHARD
    shard.unlink()
    shard.symlink_to(folder.parent / "secret" / "data" / SHARD)
    line = refusal(folder, no_network)
    assert f"{shard} is a link to {folder.parent}/secret/data/{SHARD}, outside of the dataset's folder" in line


def test_a_folder_that_is_a_link_to_elsewhere(folder: Path, no_network: list[Any]) -> None:
    (folder / "data" / SHARD).unlink()
    (folder / "data").rmdir()
    (folder / "data").symlink_to(folder.parent / "secret" / "data")
    assert f"{folder}/data/{SHARD} is at {folder.parent}/secret/data/{SHARD}" in refusal(folder, no_network)


def test_a_readme_that_is_a_link_to_elsewhere(folder: Path, no_network: list[Any]) -> None:
    (folder.parent / "private.md").write_text("---\nconfigs: [secret]\n---\n")
    (folder / "README.md").symlink_to("../private.md")
    assert "README.md is a link to" in refusal(folder, no_network)


def test_links_that_stay_inside(folder: Path) -> None:
    (folder / "stored").mkdir()
    (folder / "data" / SHARD).rename(folder / "stored" / "blob")
    (folder / "data" / SHARD).symlink_to("../stored/blob")
    alias = folder.parent / "alias"
    alias.symlink_to(folder)
    assert len(load_rows(str(alias), "train")) == 2


def in_hub_cache(folder: Path) -> Path:
    """The dataset as the hub's cache keeps it: a snapshot of links to blobs."""
    repository = folder.parent / "hub" / "datasets--owner--name"
    snapshot = repository / "snapshots" / "0123abc"
    (snapshot / "data").mkdir(parents=True)
    (repository / "blobs").mkdir()
    (folder / "data" / SHARD).rename(repository / "blobs" / "f00d")
    (snapshot / "data" / SHARD).symlink_to("../../../blobs/f00d")
    return snapshot


def test_the_layout_of_the_hubs_cache(folder: Path) -> None:
    assert len(load_rows(str(in_hub_cache(folder)), "train")) == 2


def test_blobs_that_are_a_link_do_not_count(folder: Path, no_network: list[Any]) -> None:
    snapshot = in_hub_cache(folder)
    blobs = snapshot.parent.parent / "blobs"
    blobs.rename(folder.parent / "moved")
    blobs.symlink_to(folder.parent / "moved")
    assert "outside of the dataset's folder" in refusal(snapshot, no_network)


# What `save_to_disk` wrote


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    write_saved(tmp_path / "saved", {"train": 2})
    write_saved(tmp_path / "secret", {"train": 3})
    return tmp_path / "saved"


@pytest.mark.parametrize(
    "name", ["../../secret/train/data-00000-of-00001.arrow", "/SECRET/x.arrow", "memory://x.arrow"]
)
def test_saved_data_files_elsewhere(name: str, saved: Path, no_network: list[Any]) -> None:
    edit(saved / "train" / "state.json", _data_files=[{"filename": name.replace("/SECRET", str(saved.parent))}])
    assert "state.json names" in refusal(saved, no_network)


@pytest.mark.parametrize("name", ["../secret/train", "/SECRET/secret/train", "a::https://example.com/x"])
def test_saved_splits_elsewhere(name: str, saved: Path, no_network: list[Any]) -> None:
    edit(saved / "dataset_dict.json", splits=[name.replace("/SECRET", str(saved.parent))])
    assert "dataset_dict.json names" in refusal(saved, no_network)


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
def test_saved_files_that_are_links_to_elsewhere(name: str, saved: Path, no_network: list[Any]) -> None:
    (saved / "train" / name).unlink()
    (saved / "train" / name).symlink_to(saved.parent / "secret" / "train" / name)
    assert f"{name} is a link to" in refusal(saved, no_network)


def test_a_single_saved_split(tmp_path: Path, no_network: list[Any]) -> None:
    as_dataset(2).save_to_disk(str(tmp_path / "one"))
    assert len(load_rows(str(tmp_path / "one"), "train")) == 2
    edit(tmp_path / "one" / "state.json", _data_files=[{"filename": "../x.arrow"}])
    assert "state.json names '../x.arrow'" in refusal(tmp_path / "one", no_network)
