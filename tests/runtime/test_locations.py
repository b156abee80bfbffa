"""What a name means: a hub id, a place on this machine, a folder that can be written."""

from pathlib import Path

import pytest

from satlisa.errors import SatlisaError
from satlisa.runtime.locations import check_writable, existing_folder, existing_place, is_hub_id


@pytest.mark.parametrize("name", ["owner/name", "name", "Qwen/Qwen3.5-0.8B", "a_b.c-d"])
def test_hub_ids(name: str) -> None:
    assert is_hub_id(name)


@pytest.mark.parametrize("name", ["", "./name", "/name", "a/b/c", "a/../b", "..", "~/name", "hf://a/b", "a b", "é/b"])
def test_paths_and_addresses_are_no_hub_ids(name: str) -> None:
    assert not is_hub_id(name)


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").write_text("x")
    assert existing_place("~/file") == tmp_path / "file" and existing_folder("~/file") is None
    assert existing_folder("~") == tmp_path
    for nowhere in ("~/nothing", "a\0b", "x" * 5000, "~nobody-of-this-name/x"):
        assert existing_place(nowhere) is None


def test_a_folder_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "folder", "--out")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(SatlisaError, match=rf"--out: expected a folder at {tmp_path}/file, found a file"):
        check_writable(tmp_path / "file" / "below", "--out")
