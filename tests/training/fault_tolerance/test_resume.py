"""Where a run starts, for each state of its folder and each RESUME and OVERWRITE: nothing is lost unasked."""

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from satlisa.errors import SatlisaError
from satlisa.runtime.atomic_files import PARTIAL
from satlisa.training.fault_tolerance import resume
from satlisa.training.fault_tolerance.checkpoint_files import (
    list_checkpoints,
    read_checkpoint,
    write_checkpoint,
)
from satlisa.training.fault_tolerance.resume import Start, choose_start, prepare_folder
from tests.helpers.run_folders import IDENTITY, checkpoint, make_run, place_of, settings


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(folder: Path) -> list[str]:
    return [place.name for place in list_checkpoints(folder)]


def test_the_decision_changes_nothing(tmp_path: Path) -> None:
    for number, (steps, finished) in enumerate([((2, 4), False), ((2, 4), True), ((), False)]):
        folder = make_run(tmp_path / str(number), *steps, finished=finished)
        before = contents(folder)
        for more in ({}, {"OVERWRITE": "1"}, {"RESUME": "never", "OVERWRITE": "1"}):
            choose_start(settings(folder, **more), IDENTITY)
        choose_start(settings(folder, OVERWRITE="1"), {**IDENTITY, "SEED": 1})
        assert contents(folder) == before
    choose_start(settings(tmp_path / "new"), IDENTITY)
    assert not (tmp_path / "new").exists()


def test_new_and_unfinished_and_finished(tmp_path: Path) -> None:
    assert choose_start(settings(tmp_path / "new"), IDENTITY) == Start(is_new=True)
    folder = make_run(tmp_path / "run", 2, 4)
    for more in ({}, {"OVERWRITE": "1"}):
        assert choose_start(settings(folder, **more), IDENTITY) == Start(place_of(folder, 4))
    with pytest.raises(SatlisaError, match=r"SEED was 0, is 1; .*OVERWRITE=1"):
        choose_start(settings(folder), {**IDENTITY, "SEED": 1})
    with pytest.raises(SatlisaError, match=r"not empty.*OVERWRITE=1"):
        choose_start(settings(folder, RESUME="never"), IDENTITY)
    assert choose_start(settings(folder, RESUME="never", OVERWRITE="1"), IDENTITY) == Start(is_new=True)
    make_run(folder, 2, 4, finished=True)
    assert choose_start(settings(folder), IDENTITY) == Start(is_finished=True)
    assert choose_start(settings(folder, OVERWRITE="1"), IDENTITY) == Start(is_new=True)


@pytest.mark.parametrize(("part", "is_folder"), [("vlm_lora", True), ("tokenizer", True), ("seg_projector.pt", False)])
def test_a_part_of_the_other_kind_stops_the_run_at_its_start(tmp_path: Path, part: str, is_folder: bool) -> None:
    folder = make_run(tmp_path / "run", 2)
    place = folder / part
    place.unlink(missing_ok=True)
    place.write_text("mine") if is_folder else place.mkdir()
    with pytest.raises(SatlisaError, match=f"OUTPUT_DIR: .*{part} is to be written where a .* lies; move it away"):
        choose_start(settings(folder), IDENTITY)
    place.unlink() if is_folder else place.rmdir()
    place.symlink_to(tmp_path)  # a link is replaced
    assert choose_start(settings(folder), IDENTITY) == Start(place_of(folder, 2))


def test_a_run_that_never_took_a_step_stands_in_nobodys_way(tmp_path: Path) -> None:
    prepare_folder(settings(tmp_path / "run"), IDENTITY, Start(is_new=True))
    assert choose_start(settings(tmp_path / "run"), {**IDENTITY, "SEED": 1}) == Start(is_new=True)
    assert choose_start(settings(tmp_path / "run", RESUME="never"), IDENTITY) == Start(is_new=True)
    record = tmp_path / "run" / "checkpoints" / "run.json"
    record.rename(record.with_name("run.json" + PARTIAL))  # killed while it was written
    assert choose_start(settings(tmp_path / "run"), IDENTITY) == Start(is_new=True)


def test_writing_over_takes_our_own_things_alone(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", 2, 4, finished=True)
    (folder / "checkpoints" / "yolo-best.pt").write_bytes(b"foreign")
    (folder / "checkpoints" / f"step-00000009{PARTIAL}").mkdir()
    shutil.copytree(place_of(folder, 4), folder / "checkpoints" / "keep" / "step-00000004")
    prepare_folder(settings(folder), IDENTITY, choose_start(settings(folder, OVERWRITE="1"), IDENTITY))
    left = {name for name in contents(folder) if "keep" not in name}
    assert left == {"checkpoints/run.json", "checkpoints/yolo-best.pt", "seg_projector.pt"}
    kept = folder / "checkpoints" / "keep" / "step-00000004"
    make_run(folder, 6)
    start = choose_start(settings(folder, RESUME=str(kept), OVERWRITE="1"), IDENTITY)
    assert start == Start(kept, is_new=True)
    prepare_folder(settings(folder), IDENTITY, start)
    assert names(folder) == [] and read_checkpoint(kept).state["step"] == 4


def test_files_of_the_user_among_the_checkpoints_stay(tmp_path: Path) -> None:
    """In a folder that is called like a checkpoint, and in a checkpoint that is written again or removed."""
    folder = make_run(tmp_path / "run", 2, 4)
    for step in (2, 4, 42):
        place_of(folder, step).mkdir(exist_ok=True)
        (place_of(folder, step) / "mine.txt").write_text("mine")
    assert names(folder) == ["step-00000002", "step-00000004"]
    (place_of(folder, 4) / "trained.safetensors").write_bytes(b"damaged")
    write_checkpoint(checkpoint(4), folder, keep=1)  # removes step 2
    assert names(folder) == ["step-00000004"] and (place_of(folder, 4) / "mine.txt").is_file()
    prepare_folder(settings(folder), IDENTITY, Start(is_new=True))
    left = {"checkpoints/run.json", "seg_projector.pt", *(f"checkpoints/step-{n:08d}/mine.txt" for n in (2, 4, 42))}
    assert contents(folder).keys() == left and names(folder) == []
    write_checkpoint(checkpoint(2), folder, keep=1)
    assert read_checkpoint(place_of(folder, 2)).state["step"] == 2 and (place_of(folder, 2) / "mine.txt").is_file()


def test_checkpoints_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "scratch")
    folder = make_run(tmp_path / "run", 2)
    assert choose_start(settings(folder), IDENTITY) == Start(place_of(folder, 2))
    prepare_folder(settings(folder), IDENTITY, Start(is_new=True))
    assert names(folder) == []


@pytest.mark.parametrize("finished", [False, True])
def test_going_back_is_asked_for(finished: bool, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", 2, 4, 6, finished=finished)
    back = place_of(folder, 2)
    with pytest.raises(SatlisaError, match=r"going back to step-00000002 would discard .*2 checkpoints.*OVERWRITE=1"):
        choose_start(settings(folder, RESUME=str(back)), IDENTITY)
    start = choose_start(settings(folder, RESUME=str(back), OVERWRITE="1"), IDENTITY)
    assert start == Start(back, is_new=True)
    prepare_folder(settings(folder, RESUME=str(back), OVERWRITE="1"), IDENTITY, start)
    assert names(folder) == ["step-00000002"] and not (folder / "train_summary.json").exists()
    write_checkpoint(checkpoint(3), folder, keep=2)
    write_checkpoint(checkpoint(4), folder, keep=2)
    assert names(folder) == ["step-00000003", "step-00000004"]
    # the same command again, of which the checkpoint named there is gone by now
    assert not back.exists()
    for more in ({"RESUME": str(back), "OVERWRITE": "1"}, {"RESUME": str(back)}, {}):
        assert choose_start(settings(folder, **more), IDENTITY) == Start(place_of(folder, 4))
    (folder / "train_summary.json").write_text("{}")
    with pytest.raises(SatlisaError, match="RESUME: expected auto, never or"):
        choose_start(settings(folder, RESUME=str(back), OVERWRITE="1"), IDENTITY)


def test_the_newest_checkpoint_by_name(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", 2, 4)
    for named in (folder, place_of(folder, 4)):
        assert choose_start(settings(folder, RESUME=str(named)), IDENTITY) == Start(place_of(folder, 4))
    (folder / "train_summary.json").write_text("{}")
    for named in (folder, place_of(folder, 4)):
        assert choose_start(settings(folder, RESUME=str(named)), IDENTITY) == Start(is_finished=True)


def test_from_another_runs_folder_and_the_same_command_again(tmp_path: Path) -> None:
    """That run has taken more steps meanwhile, and is then removed: the run that started from it still resumes."""
    other, folder = make_run(tmp_path / "other", 2), tmp_path / "run"
    made = settings(folder, RESUME=str(other), OVERWRITE="1")
    start = choose_start(made, IDENTITY)
    assert start == Start(place_of(other, 2), is_new=True)
    prepare_folder(made, IDENTITY, start)
    write_checkpoint(checkpoint(3), folder, keep=2)
    write_checkpoint(checkpoint(4), other, keep=2)
    assert choose_start(made, IDENTITY) == Start(place_of(folder, 3))
    shutil.rmtree(other)
    assert choose_start(made, IDENTITY) == Start(place_of(folder, 3))


def test_from_another_run_and_the_same_command_again(tmp_path: Path) -> None:
    other, folder = make_run(tmp_path / "other", 2, 4), tmp_path / "run"
    made = settings(folder, RESUME=str(place_of(other, 2)))
    start = choose_start(made, IDENTITY)
    assert start == Start(place_of(other, 2), is_new=True)
    prepare_folder(made, IDENTITY, start)
    assert choose_start(made, IDENTITY) == start and names(other) == ["step-00000002", "step-00000004"]
    write_checkpoint(checkpoint(3), folder, keep=2)
    for again in (made, settings(folder), replace(made, overwrite=True)):
        assert choose_start(again, IDENTITY) == Start(place_of(folder, 3))
    with pytest.raises(SatlisaError, match=r"not empty.*OVERWRITE=1"):  # another one than it began from
        choose_start(settings(folder, RESUME=str(place_of(other, 4))), IDENTITY)
    (folder / "train_summary.json").write_text("{}")
    assert choose_start(made, IDENTITY) == Start(is_finished=True)
    with pytest.raises(SatlisaError, match=r"RESUME: .* other settings: SEED was 0, is 1"):
        choose_start(settings(tmp_path / "third", RESUME=str(other)), {**IDENTITY, "SEED": 1})


def test_a_lost_record_is_in_the_checkpoints(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", 2, 4)
    record = folder / "checkpoints" / "run.json"
    for broken in ("", "{", "[]", '{"identity": 1}'):
        record.write_text(broken)
        assert choose_start(settings(folder), IDENTITY) == Start(place_of(folder, 4))
    record.unlink()
    assert choose_start(settings(folder), IDENTITY) == Start(place_of(folder, 4))
    with pytest.raises(SatlisaError, match="SEED was 0, is 1"):
        choose_start(settings(folder), {**IDENTITY, "SEED": 1})


def test_a_changed_state_is_damaged(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", 2, 4)
    path = place_of(folder, 4) / "state.json"
    state = json.loads(path.read_text())
    for changed in ({**state, "step": 3}, {key: value for key, value in state.items() if key != "epoch"}):
        path.write_text(json.dumps(changed))
        assert choose_start(settings(folder), IDENTITY) == Start(place_of(folder, 2))


def test_folders_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for folder, said in (
        (tmp_path / "file", "found a file"),
        (tmp_path / "file" / "run", "found a file"),
        (tmp_path / ("x" * 300), "cannot be used"),
    ):
        with pytest.raises(SatlisaError, match=f"OUTPUT_DIR: .*{said}"):
            choose_start(settings(folder), IDENTITY)
    with pytest.raises(SatlisaError, match="RESUME: expected auto, never or"):
        choose_start(settings(tmp_path / "run", RESUME="x" * 300), IDENTITY)
    with pytest.raises(SatlisaError, match=r"RESUME: .* holds no checkpoint"):
        choose_start(settings(tmp_path / "run", RESUME=str(tmp_path)), IDENTITY)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(SatlisaError, match=r"OUTPUT_DIR: .* cannot be written"):
        choose_start(settings(tmp_path / "run"), IDENTITY)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(resume, "atomic_write", full)
    with pytest.raises(SatlisaError, match=r"OUTPUT_DIR: .* cannot be written .*No space left"):
        prepare_folder(settings(tmp_path / "run"), IDENTITY, Start(is_new=True))


def test_a_checkpoint_of_another_run_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Beside the run's own ones: it is not used, not counted among those to keep, not taken for one already written."""
    folder, other = (
        make_run(tmp_path / "run", 2, 4),
        make_run(tmp_path / "other", 5, 9, identity={**IDENTITY, "SEED": 1}),
    )
    for step in (5, 9):
        shutil.copytree(place_of(other, step), place_of(folder, step))
    assert choose_start(settings(folder), IDENTITY) == Start(place_of(folder, 4))
    assert "step-00000009: of a run with other settings: SEED was 0, is 1" not in caplog.text
    assert "step-00000009: of a run with other settings: SEED was 1, is 0; trying the checkpoint" in caplog.text
    assert choose_start(settings(tmp_path / "new", RESUME=str(folder)), IDENTITY).checkpoint == place_of(folder, 4)
    write_checkpoint(checkpoint(5), folder, keep=2)
    assert names(folder) == ["step-00000004", "step-00000005", "step-00000009"]
    assert choose_start(settings(folder), IDENTITY) == Start(place_of(folder, 5))
    for step in (4, 5):
        shutil.rmtree(place_of(folder, step))
    with pytest.raises(SatlisaError, match=r"none of its 1 checkpoints can be read as one of this run"):
        choose_start(settings(folder), IDENTITY)


def test_swapped_files_and_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("trained.safetensors", "optimizer.safetensors", "state.json"):
        folder = make_run(tmp_path / name, 2, 4, 6)
        one, other, spare = place_of(folder, 4) / name, place_of(folder, 6) / name, tmp_path / "spare"
        for source, target in ((one, spare), (other, one), (spare, other)):
            source.rename(target)
        assert choose_start(settings(folder), IDENTITY) == Start(place_of(folder, 2))
    folder = make_run(tmp_path / "folders", 2, 4)
    place_of(folder, 4).rename(place_of(folder, 6))
    assert choose_start(settings(folder), IDENTITY) == Start(place_of(folder, 2))
    assert "holds step-00000004, another checkpoint than its name says" in caplog.text
    place_of(folder, 2).rename(folder / "best")  # a name of the user's own says nothing about the step
    assert choose_start(settings(tmp_path / "x", RESUME=str(folder / "best")), IDENTITY).checkpoint == folder / "best"


@pytest.mark.parametrize(
    "name", ["state.json", "trained.safetensors", "optimizer.safetensors", "random.safetensors", "../run.json"]
)
def test_only_regular_files_are_opened(name: str, tmp_path: Path) -> None:
    """Nobody writes into the pipe: opening it would wait forever. A device would fill the memory."""
    folder = make_run(tmp_path / "run", 2, 4)
    path = place_of(folder, 4) / name
    expected = Start(place_of(folder, 4 if name == "../run.json" else 2))
    path.unlink()
    os.mkfifo(path)
    assert choose_start(settings(folder), IDENTITY) == expected
    path.unlink()
    path.symlink_to("/dev/zero")
    assert choose_start(settings(folder), IDENTITY) == expected


def test_a_state_of_a_terabyte(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", 2, 4)
    os.truncate(place_of(folder, 4) / "state.json", 2**40)
    assert choose_start(settings(folder), IDENTITY) == Start(place_of(folder, 2))


@pytest.mark.parametrize(
    ("before", "now", "wish"),
    [
        ({"EPOCHS": 2}, {"EPOCHS": 5}, "train for another number of epochs or steps"),
        ({"DATASET contents": "a"}, {"DATASET contents": "b"}, "train on other rows"),
        ({}, {"SEG_TASKS": "x"}, "train on other rows"),
        ({"model_config.json lora_rank": 16}, {"model_config.json lora_rank": 8}, "train another model"),
        ({"LEARNING_RATE": 0.1}, {"LEARNING_RATE": 0.2}, "train with other settings"),
    ],
)
def test_the_message_says_how_to_get_what_is_wanted(
    before: dict[str, Any], now: dict[str, Any], wish: str, tmp_path: Path
) -> None:
    folder = make_run(tmp_path / "run", 2, identity=before)
    with pytest.raises(SatlisaError) as in_folder:
        choose_start(settings(folder), now)
    with pytest.raises(SatlisaError) as by_name:
        choose_start(settings(tmp_path / "new", RESUME=str(folder)), now)
    for said in map(str, (in_folder.value, by_name.value)):
        assert f"; to {wish}" in said and "start a new run in another OUTPUT_DIR" in said
        assert "to resume that run, repeat the command that started it" in said and "back" not in said


def test_records_of_earlier_versions(tmp_path: Path) -> None:
    """They do not hold the hash of a stream's texts."""
    folder = make_run(tmp_path / "run", 2)
    assert choose_start(settings(folder), {**IDENTITY, "DATASET texts": "a"}) == Start(place_of(folder, 2))
    later = make_run(tmp_path / "later", 2, identity={**IDENTITY, "DATASET texts": "a"})
    with pytest.raises(SatlisaError, match="DATASET texts was 'a', is 'b'"):
        choose_start(settings(later), {**IDENTITY, "DATASET texts": "b"})


def test_the_disk_is_tried_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(tmp_path / "run", 2, finished=True)
    original = os.rename

    def rename(source: Any, target: Any, **more: Any) -> None:
        if Path(source).is_dir():
            raise OSError(errno.ENOSYS, "Function not implemented")
        original(source, target, **more)

    monkeypatch.setattr(os, "rename", rename)
    assert choose_start(settings(folder), IDENTITY) == Start(is_finished=True)
    (folder / "train_summary.json").unlink()
    for place in (folder, tmp_path / "new" / "run"):
        with pytest.raises(SatlisaError, match=r"OUTPUT_DIR: in .* the disk cannot rename a folder .*on another disk"):
            choose_start(settings(place), IDENTITY)
