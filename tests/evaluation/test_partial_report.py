"""The output folder of an evaluation: what is written, what is kept, and that it never takes anybody's place."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from satlisa.errors import SatlisaError
from satlisa.evaluation.partial_report import PartialReport
from satlisa.evaluation.report import read_results, write_report


def entry(number: int, *kinds: str) -> dict[str, Any]:
    """A text answer with pictures of these kinds."""
    unknown = dict.fromkeys(("source", "iou", "intersection", "union", "error"))
    known = {"number": number, "index": number, "task": "t", "prompt": "p", "expected": "e", "output": "o"}
    images = {kind: f"images/sample_{number:03d}_{kind}.png" for kind in kinds}
    return {**unknown, **known, "correct": True, "exact_match": True, "segs": 0, "expected_segs": 0, "images": images}


def build(folder: Path, *samples: dict[str, Any]) -> None:
    """A finished report with a picture's worth of bytes for each name in it."""
    with PartialReport(folder) as report:
        for path in (path for sample in samples for path in sample["images"].values()):
            (report.folder / path).write_bytes(b"png")
        write_report({"settings": {}, "tasks": {}, "samples": samples}, report.folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def interrupt(folder: Path, windows: int, identity: dict[str, Any] | None = None, **options: Any) -> None:
    """An evaluation of three windows of two samples that raises after some of them."""
    with pytest.raises(RuntimeError, match="halfway"), PartialReport(folder, **options) as report:
        done = report.start(identity or {"--seed": 0}, 6)
        for number in [n for n in range(3) if n not in done][:windows]:
            pictures = (Image.new("RGB", (4, 4)), None, None)
            report.add(number, [(entry(2 * number), pictures), (entry(2 * number + 1), None)])
        raise RuntimeError("halfway")


def test_a_new_report_replaces_ours_and_leaves_the_rest(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    build(out, entry(0, "input"), entry(1003, "gt_mask"))
    (out / "notes.txt").write_text("mine")
    (out / "images" / "sample_000_input_crop.png").write_text("mine too")
    build(out, entry(3, "input"))
    pictures = ["images/sample_000_input_crop.png", "images/sample_003_input.png"]
    assert sorted(contents(out)) == ["REPORT.md", *pictures, "notes.txt", "results.json"]
    assert [sample["number"] for sample in read_results(out / "results.json")["samples"]] == [3]


@pytest.mark.parametrize("windows", [0, 1])
def test_a_run_that_fails_leaves_the_old_report_whole(tmp_path: Path, windows: int) -> None:
    build(tmp_path / "out", entry(0, "input"))
    before = contents(tmp_path / "out")
    interrupt(tmp_path / "out", windows)
    after = contents(tmp_path / "out")
    assert {name: data for name, data in after.items() if not name.startswith(".partial")} == before
    assert (tmp_path / "out/.partial").exists() == bool(windows)  # an empty one is not kept


def test_nothing_is_left_where_nothing_was_done(tmp_path: Path) -> None:
    interrupt(tmp_path / "new", 0)
    assert not (tmp_path / "new").exists()
    (tmp_path / "empty").mkdir()
    interrupt(tmp_path / "empty", 0)
    assert (tmp_path / "empty").is_dir()


def test_a_report_that_fails_to_be_written_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"), PartialReport(tmp_path / "nan") as report:
        write_report({"settings": {"seconds": float("nan")}, "tasks": {}, "samples": []}, report.folder)
    assert not (tmp_path / "nan").exists()


def test_windows_that_are_done_are_known_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    interrupt(tmp_path, 1)
    assert "interrupted after 2 of 6 samples; run the same command with --resume to continue" in caplog.text
    with pytest.raises(RuntimeError), PartialReport(tmp_path, resume=True) as report:
        done = report.start({"--seed": 0}, 6)
        raise RuntimeError
    assert done == {0: [entry(0, "input"), entry(1)]}
    assert "resuming after 2 of 6 samples" in caplog.text
    interrupt(tmp_path, 1, resume=True)
    assert caplog.messages[-1].startswith("interrupted after 4 of 6 samples")
    assert sorted(contents(tmp_path)) == [
        *(f".partial/images/sample_00{number}_input.png" for number in (0, 2)),
        ".partial/settings.json",
        *(f".partial/windows/0000{number}.json" for number in (0, 1)),
    ]


@pytest.mark.parametrize("rest", ["", "[", '[{"number": 2, "ind', "null"])
def test_a_window_that_is_cut_is_done_anew(tmp_path: Path, rest: str) -> None:
    interrupt(tmp_path, 2)
    (tmp_path / ".partial/windows/00001.json").write_text(rest)
    (tmp_path / ".partial/windows/00002.json.partial").write_text("[{")
    with PartialReport(tmp_path, resume=True) as report:
        assert list(report.start({"--seed": 0}, 6)) == [0]
        write_report({"settings": {}, "tasks": {}, "samples": [entry(0, "input")]}, report.folder)
    assert sorted(contents(tmp_path)) == ["REPORT.md", "images/sample_000_input.png", "results.json"]


def test_other_settings_are_refused_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    interrupt(tmp_path, 1, {"--seed": 0, "--split": "test", "--seg_tasks": ("a",), "--gone": 1})
    before, said = contents(tmp_path), len(caplog.messages)
    now = {"--seed": 4, "--split": "test", "--seg_tasks": ("a",), "--new": "x"}
    changes = "other settings: --gone was 1, is not set; --new was not set, is 'x'; --seed was 0, is 4; set them back"
    with pytest.raises(SatlisaError, match=changes), PartialReport(tmp_path, resume=True) as report:
        report.start(now, 6)
    assert contents(tmp_path) == before
    assert len(caplog.messages) == said  # this run had not begun, so it was not interrupted


def test_without_resume_what_was_done_is_discarded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    interrupt(tmp_path, 2)
    with PartialReport(tmp_path) as report:
        assert "image" in " ".join(contents(report.folder))  # kept while a model might fail to load
        assert report.start({"--seed": 1}, 9) == {}
        assert "interrupted there after 4 of 6 samples is discarded; --resume would have kept it" in caplog.text
        assert list(contents(report.folder)) == ["settings.json"]
        write_report({"settings": {}, "tasks": {}, "samples": []}, report.folder)


def old_leftovers(folder: Path) -> None:
    (folder / ".partial/images").mkdir(parents=True)
    (folder / ".partial/images/sample_009_input.png").write_bytes(b"old")


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (lambda folder: None, "nothing to resume, starting from the beginning"),
        (lambda folder: build(folder, entry(0)), "nothing to resume (the report in it is finished), starting from"),
        (old_leftovers, "nothing to resume, starting"),
    ],
)
def test_nothing_to_resume(
    tmp_path: Path, before: Callable[[Path], None], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before(tmp_path)
    with PartialReport(tmp_path, resume=True) as report:
        assert report.start({"--seed": 0}, 6) == {}
        write_report({"settings": {}, "tasks": {}, "samples": [entry(5)]}, report.folder)
    assert caplog.messages == [f"{tmp_path}: {caplog.messages[0].split(': ', 1)[1]}"] and said in caplog.text
    assert sorted(contents(tmp_path)) == ["REPORT.md", "results.json"]


@pytest.mark.parametrize("file", ["REPORT.md", "results.json"])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_move_that_was_killed_is_done_again(
    is_first: bool, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_first:
        build(tmp_path, entry(0, "input"), entry(8, "input"))
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if self.name == file:
            raise KeyboardInterrupt
        return replace(self, target)

    with pytest.raises(KeyboardInterrupt), PartialReport(tmp_path) as report:
        report.start({"--seed": 0}, 1)
        report.add(0, [(entry(0), (Image.new("RGB", (4, 4)), None, None))])
        write_report({"settings": {}, "tasks": {}, "samples": report.finish(1)[0]}, report.folder)
        monkeypatch.setattr(Path, "replace", killed)
    monkeypatch.undo()
    assert (tmp_path / ".partial/windows/00000.json").exists()
    with PartialReport(tmp_path, resume=True) as report:
        samples = report.start({"--seed": 0}, 1)[0]
        write_report({"settings": {}, "tasks": {}, "samples": samples}, report.folder)
    assert sorted(contents(tmp_path)) == ["REPORT.md", "images/sample_000_input.png", "results.json"]
    assert contents(tmp_path)["images/sample_000_input.png"] != b"png"


@pytest.mark.parametrize(("name", "content"), [("photo.jpg", "x"), ("results.json", "[]"), ("results.json", "{oops")])
def test_a_folder_that_is_not_ours_is_refused(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(SatlisaError, match="no earlier report of ours"), PartialReport(tmp_path):
        pytest.fail("the block must not run")
    assert contents(tmp_path) == {name: content.encode()}


def test_output_dir_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(SatlisaError, match="found a file"), PartialReport(tmp_path / "file"):
        pass
    with pytest.raises(SatlisaError, match="found a file"), PartialReport(tmp_path / "file" / "below"):
        pass


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    with (
        pytest.raises(SatlisaError, match=r"--output_dir: .*cannot be written .*No space"),
        PartialReport(tmp_path) as report,
    ):
        report.start({"--seed": 0}, 6)
        report.add(0, [(entry(0), None)])
        monkeypatch.setattr(Image.Image, "save", full)
        report.add(1, [(entry(2), (Image.new("RGB", (4, 4)), None, None))])
    assert list(PartialReport(tmp_path).done_windows()) == [0]


def test_windows_that_are_missing_in_the_end(tmp_path: Path) -> None:
    with pytest.raises(SatlisaError, match="2 of 3 windows are missing"), PartialReport(tmp_path) as report:
        report.start({"--seed": 0}, 6)
        report.add(1, [(entry(2), None)])
        report.finish(3)
