"""Atomic writes: the old content or the new one, whatever fails; nothing is left behind."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from satlisa.runtime.atomic_files import (
    OLD,
    PARTIAL,
    atomic_remove,
    atomic_replace,
    atomic_write,
    is_incomplete,
    remove_leftovers,
    replace_together,
)


def make_folder(path: Path, *names: str) -> Path:
    path.mkdir(parents=True)
    for name in names:
        (path / name).write_text(name)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def write_folder(temporary: Path) -> None:
    make_folder(temporary / "deep", "new")


def write_file(temporary: Path) -> None:
    temporary.write_text("new")
    temporary.chmod(0o600)


@pytest.mark.parametrize("unique", [False, True])
@pytest.mark.parametrize("durable", [False, True])
def test_files_and_folders_are_replaced(tmp_path: Path, *, unique: bool, durable: bool) -> None:
    make_folder(tmp_path / "folder", "old")
    (tmp_path / "file").write_text("old")
    make_folder(tmp_path / ("folder" + OLD), "left by a killed run")
    for name in ("folder" + PARTIAL, "file" + PARTIAL):
        make_folder(tmp_path / name, "left by a killed run")
    atomic_replace(tmp_path / "folder", write_folder, unique=unique, durable=durable)
    atomic_replace(tmp_path / "file", write_file, unique=unique, durable=durable)
    left = ["file" + PARTIAL, "folder" + PARTIAL] if unique else []  # they may be another writer's
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["file", "folder", *left])
    assert names(tmp_path / "folder") == ["deep", "deep/new"]
    assert (tmp_path / "file").read_text() == "new"
    (tmp_path / "ordinary").write_text("")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


@pytest.mark.parametrize("name", ["file", "folder", "absent"])
@pytest.mark.parametrize("write", [write_file, write_folder])
def test_a_failure_changes_nothing(name: str, write: Callable[[Path], None], tmp_path: Path) -> None:
    make_folder(tmp_path / "folder", "old")
    (tmp_path / "file").write_text("old")
    before = names(tmp_path)

    def interrupted(temporary: Path) -> None:
        write(temporary)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_replace(tmp_path / name, interrupted)
    assert names(tmp_path) == before and (tmp_path / "file").read_text() == "old"


def test_a_swap_that_fails_restores_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the new folder cannot be deleted: the old one comes back first."""
    make_folder(tmp_path / "folder", "old")

    def fail(*_: object) -> None:
        raise OSError("Input/output error")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="Input/output"):
        atomic_replace(tmp_path / "folder", write_folder)
    assert names(tmp_path) == ["folder", "folder/old"]
    monkeypatch.setattr("satlisa.runtime.atomic_files._remove", lambda path: fail() if path.exists() else None)
    with pytest.raises(OSError, match="Input/output"):
        atomic_replace(tmp_path / "folder", write_folder)
    assert names(tmp_path / "folder") == ["old"]


def test_a_file_never_replaces_a_folder(tmp_path: Path) -> None:
    make_folder(tmp_path / "folder", "old")
    with pytest.raises(OSError):
        atomic_write(tmp_path / "folder", b"new")
    assert names(tmp_path) == ["folder", "folder/old"]


def test_the_content_is_on_the_disk_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (order.append("fsync"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda source, target: (order.append("rename"), replace(source, target)))
    atomic_write(tmp_path / "file", b"content")
    assert order == ["fsync", "rename", "fsync"] and (tmp_path / "file").read_bytes() == b"content"


def test_writers_of_the_same_file_do_not_meet(tmp_path: Path) -> None:
    """The second one begins and ends while the first one writes."""

    def first(temporary: Path) -> None:
        temporary.write_text("first, beg")
        atomic_replace(tmp_path / "entry", lambda other: other.write_text("second"), unique=True)
        assert temporary.read_text() == "first, beg" and (tmp_path / "entry").read_text() == "second"
        temporary.write_text("first")

    atomic_replace(tmp_path / "entry", first, unique=True)
    assert names(tmp_path) == ["entry"] and (tmp_path / "entry").read_text() == "first"


def test_removal_and_leftovers(tmp_path: Path) -> None:
    make_folder(tmp_path / "step-1", "a")
    for name in ("step-2" + PARTIAL, "step-2" + OLD, "step-4", "other" + PARTIAL):
        make_folder(tmp_path / name, "a")
    atomic_remove(tmp_path / "step-1")
    remove_leftovers(tmp_path, "step-*")
    remove_leftovers(tmp_path / "nowhere", "step-*")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["other" + PARTIAL, "step-4"]


def test_files_of_others_stay(tmp_path: Path) -> None:
    """Also those whose names look like temporary ones."""
    make_folder(tmp_path / "folder", "old")
    theirs = [f"{name}{end}" for name in ("folder", "file", "step-1") for end in (".old", ".partial", ".tmp", ".bak")]
    for name in theirs:
        make_folder(tmp_path / name, "mine.txt")
    atomic_replace(tmp_path / "folder", write_folder)
    atomic_replace(tmp_path / "file", write_file)
    replace_together(tmp_path, "both", {"folder": write_folder, "file": write_file})
    make_folder(tmp_path / "step-1", "a")
    atomic_remove(tmp_path / "step-1")
    remove_leftovers(tmp_path, "*")
    assert all((tmp_path / name / "mine.txt").is_file() for name in theirs)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["folder", "file", *theirs])


BOTH = {"folder": write_folder, "file": write_file, "second": write_file}


def old_three(folder: Path) -> None:
    make_folder(folder / "folder", "old")
    for name in ("file", "second"):
        (folder / name).write_text("old")


def test_several_are_replaced_together(tmp_path: Path) -> None:
    old_three(tmp_path)
    replace_together(tmp_path, "three", BOTH)
    assert names(tmp_path) == ["file", "folder", "folder/deep", "folder/deep/new", "second"]
    assert (tmp_path / "file").read_text() == (tmp_path / "second").read_text() == "new"
    assert not is_incomplete(tmp_path, "three")


@pytest.mark.parametrize("name", BOTH)
def test_a_full_disk_leaves_all_of_them(name: str, tmp_path: Path) -> None:
    old_three(tmp_path)
    before = names(tmp_path)

    def full(temporary: Path) -> None:
        BOTH[name](temporary)
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        replace_together(tmp_path, "three", {**BOTH, name: full})
    assert names(tmp_path) == before and (tmp_path / "file").read_text() == "old"
    assert not is_incomplete(tmp_path, "three")


@pytest.mark.parametrize("number", range(4))
def test_a_stop_between_the_renames_is_marked(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until all of them are written once more."""
    old_three(tmp_path)
    replaced: list[object] = []
    replace, rename = os.replace, os.rename

    def counted(move: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
        def run(source: Path, target: Path) -> None:
            if len(replaced) == number:
                raise KeyboardInterrupt
            replaced.append(target)
            move(source, target)

        return run

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counted(replace))
        patch.setattr(os, "rename", counted(rename))
        with pytest.raises(KeyboardInterrupt):
            replace_together(tmp_path, "three", BOTH)
    assert is_incomplete(tmp_path, "three")
    with pytest.raises(ZeroDivisionError):  # a failure before any rename does not clear the mark
        replace_together(tmp_path, "three", {**BOTH, "file": lambda _: 1 / 0})
    assert is_incomplete(tmp_path, "three")
    replace_together(tmp_path, "three", BOTH)
    assert names(tmp_path) == ["file", "folder", "folder/deep", "folder/deep/new", "second"]


def test_a_mark_that_cannot_be_written_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old_three(tmp_path)
    before = names(tmp_path)

    def full(path: Path, *_: object) -> None:
        path.touch()
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    writes = {"file": lambda temporary: temporary.write_bytes(b"new")}
    with pytest.raises(OSError, match="No space"):
        replace_together(tmp_path, "three", writes)
    assert names(tmp_path) == before and (tmp_path / "file").read_bytes() == b"old"


def test_links_are_replaced_and_not_followed(tmp_path: Path) -> None:
    """Parts on another disk: each save writes new ones here, and leaves those behind the link alone."""
    old_three(tmp_path / "run")
    for name in BOTH:
        (tmp_path / "run" / name).rename(tmp_path / f"their {name}")
        (tmp_path / "run" / name).symlink_to(tmp_path / f"their {name}")
    for _ in range(3):
        replace_together(tmp_path / "run", "three", BOTH)
        assert names(tmp_path / "run") == ["file", "folder", "folder/deep", "folder/deep/new", "second"]
    assert not any(path.is_symlink() for path in (tmp_path / "run").iterdir())
    assert names(tmp_path / "their folder") == ["old"] and (tmp_path / "their file").read_text() == "old"
    (tmp_path / "step-1").symlink_to(tmp_path / "their folder")
    (tmp_path / ("step-2" + OLD)).symlink_to(tmp_path / "their folder")
    atomic_remove(tmp_path / "step-1")
    remove_leftovers(tmp_path, "step-*")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "their file", "their folder", "their second"]
    assert names(tmp_path / "their folder") == ["old"]


@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_comes_back_where_the_swap_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, dangling: bool
) -> None:
    target = tmp_path / "theirs" if dangling else make_folder(tmp_path / "theirs", "old")
    (tmp_path / "folder").symlink_to(target)

    def fail(*_: object) -> None:
        raise OSError("Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="Input/output"):
            atomic_replace(tmp_path / "folder", write_folder)
    assert (tmp_path / "folder").readlink() == target
    atomic_replace(tmp_path / "folder", write_folder)
    assert names(tmp_path / "folder") == ["deep", "deep/new"] and target.exists() != dangling


@pytest.mark.parametrize("name", ["second", "folder"])
def test_a_part_of_another_kind_is_found_before_the_first_rename(name: str, tmp_path: Path) -> None:
    """A folder where a file belongs, or the reverse."""
    old_three(tmp_path)
    (tmp_path / name).rename(tmp_path / "old one")
    if name == "second":
        make_folder(tmp_path / name, "mine.txt")
    else:
        (tmp_path / name).write_text("mine")
    before = names(tmp_path)
    with pytest.raises(FileExistsError, match=f"{name}, where a .* lies; move that away"):
        replace_together(tmp_path, "three", dict(sorted(BOTH.items())))
    assert names(tmp_path) == before and (tmp_path / "file").read_text() == "old"
    assert not is_incomplete(tmp_path, "three")


def mine_too(folder: Path) -> list[str]:
    """Adds to a folder what a user may keep there."""
    (folder / "mine.txt").write_text("mine")
    make_folder(folder / "results", "mine.csv")
    (folder / "link").symlink_to("nowhere")
    return ["link", "mine.txt", "results", "results/mine.csv"]


@pytest.mark.parametrize("way", ["alone", "together", "behind a link"])
def test_what_others_put_into_a_replaced_folder_stays(way: str, tmp_path: Path) -> None:
    theirs = mine_too(make_folder(tmp_path / "folder", "old"))
    if way == "behind a link":
        (tmp_path / "folder").rename(tmp_path / "elsewhere")
        (tmp_path / "folder").symlink_to(tmp_path / "elsewhere")
    for _ in range(2):
        if way == "alone":
            atomic_replace(tmp_path / "folder", write_folder, ours={"old"}.__contains__)
        else:
            replace_together(tmp_path, "one", {"folder": write_folder}, ours={"old"}.__contains__)
        assert names(tmp_path / "folder") == ["deep", "deep/new", *theirs]


@pytest.mark.parametrize("number", range(2))
def test_what_others_put_there_survives_a_kill(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before and after the earlier folder was renamed, and nothing is put back."""
    theirs = mine_too(make_folder(tmp_path / "folder", "old"))

    def killed(*_: object) -> None:
        raise SystemExit

    rename = os.rename
    with monkeypatch.context() as patch:
        away = lambda source, target: target.name.endswith(OLD) and rename(source, target)  # noqa: E731
        patch.setattr(os, "rename", away if number else killed)
        patch.setattr(os, "replace", killed)
        with pytest.raises(SystemExit):
            replace_together(tmp_path, "one", {"folder": write_folder}, ours={"old"}.__contains__)
    assert (tmp_path / "folder").exists() == (number == 0)
    replace_together(tmp_path, "one", {"folder": write_folder}, ours={"old"}.__contains__)
    assert names(tmp_path / "folder") == ["deep", "deep/new", *theirs]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_removal_leaves_what_others_put_there(tmp_path: Path) -> None:
    theirs = mine_too(make_folder(tmp_path / "folder", "old"))
    atomic_remove(tmp_path / "folder", ours={"old"}.__contains__)
    assert names(tmp_path) == ["folder", *(f"folder/{name}" for name in theirs)]
