"""What a name means: a hub id, a place on this machine, a folder that can be written."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from satlisa.errors import SatlisaError
from satlisa.runtime.locations import (
    advice,
    check_disk,
    check_writable,
    existing_folder,
    existing_place,
    is_hub_id,
    writing_to,
)


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


def test_a_disk_is_tried_without_a_trace(tmp_path: Path) -> None:
    before = tmp_path.stat().st_mtime_ns
    check_disk(tmp_path, "--out")
    check_disk(tmp_path / "new" / "folder", "--out")
    assert not list(tmp_path.iterdir()) and tmp_path.stat().st_mtime_ns == before


def failing(number: int) -> Any:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("function", "number", "said"),
    [
        ("mkdir", errno.EROFS, "create a folder .*Read-only.*; allow writing there, or name another folder"),
        ("fsync", errno.EINVAL, r"bring a file safely to disk \(fsync\) .*; name a folder on another disk"),
        ("replace", errno.EPERM, "replace a file by another one .*; allow writing there"),
        ("rename", errno.ENOSYS, "rename a folder .*; name a folder on another disk"),
        ("rename", errno.EIO, "rename a folder .*; look at the disk"),
    ],
)
def test_what_a_disk_cannot_do_is_said(
    function: str, number: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, function, failing(number))
    with pytest.raises(SatlisaError, match=rf"--out: in {tmp_path} the disk cannot {said}") as error:
        check_disk(tmp_path, "--out")
    assert "make room" not in str(error.value)
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())


def test_folders_that_cannot_be_fsynced_and_files_without_permissions_are_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = os.fsync

    def files_only(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        original(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    monkeypatch.setattr(os, "chmod", failing(errno.EPERM))
    check_disk(tmp_path, "--out")


def test_room_is_asked_for_where_room_is_missing(tmp_path: Path) -> None:
    with (
        pytest.raises(SatlisaError, match=r"X: .* cannot be written .*No space.*; make room, then run"),
        writing_to(tmp_path, "X"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(SatlisaError, match="; allow writing there"), writing_to(tmp_path, "X"):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    assert advice(RuntimeError("PytorchStreamWriter failed writing file")) == "make room"
