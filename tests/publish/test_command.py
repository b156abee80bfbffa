"""The command: an upload, a dry run, and mistakes in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from satlisa.publish.command import PROG, main
from tests.helpers.hub_server import TOKEN, Hub
from tests.helpers.paths import ROOT
from tests.helpers.published import HOME, REPO, change_json, evaluate_run


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["publish", *map(str, arguments)])
    return main()


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_a_dry_run_writes_is_what_is_uploaded(
    demo_run: Path,
    account: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = evaluate_run(demo_run, tmp_path / "eval")
    wanted = ["--model_dir", demo_run, "--repo", REPO, "--results", results]
    assert run(monkeypatch, *wanted, "--dry_run", tmp_path / "new" / "out") == 0
    assert not account.tokens  # no request at all
    assert run(monkeypatch, *wanted) == 0
    streams = capsys.readouterr()
    assert f"{account.address}/{REPO}: " in streams.out and "left out: checkpoints/" in streams.out
    assert TOKEN not in streams.out + streams.err
    assert account.commits == [files_in(tmp_path / "new" / "out")]


def test_a_new_model_leaves_no_scores_of_the_one_before(
    demo_run: Path, account: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ["--model_dir", demo_run, "--repo", REPO]
    assert run(monkeypatch, *wanted, "--results", evaluate_run(demo_run, tmp_path / "eval")) == 0
    account.repositories[REPO] |= {"images/mine.png": b"", ".eval_results/theirs.yaml": b""}
    first = set(account.repositories[REPO])
    change_json(demo_run / "model_config.json", max_instances=5)
    assert run(monkeypatch, *wanted) == 0
    gone = {".eval_results/satlisa-demo.yaml", "images/example_input.png", "images/example_overlay.png"}
    assert first - set(account.repositories[REPO]) == gone


def test_a_folder_that_is_not_empty_is_left_alone(
    demo_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (out := tmp_path / "out").mkdir()
    wanted = ["--model_dir", demo_run, "--repo", REPO, "--dry_run", out]
    assert run(monkeypatch, *wanted) == 0 and "nothing was" in capsys.readouterr().out
    (out / "README.md").write_text("mine")
    assert run(monkeypatch, *wanted) == 2
    assert "is not empty" in capsys.readouterr().err and (out / "README.md").read_text() == "mine"


def test_a_refused_publication_leaves_nothing(
    demo_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change_json(demo_run / "model_config.json", teacher=f"{HOME}/big")
    assert run(monkeypatch, "--model_dir", demo_run, "--repo", REPO, "--dry_run", tmp_path / "out") == 2
    line = capsys.readouterr().err
    assert line.startswith(f"{PROG}: model_config.json: teacher: names '{HOME}/big'") and line.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model_dir", "nowhere", "--repo", REPO, "--dry_run", "out"], "--model_dir: nowhere: no such folder"),
        (["--model_dir", ".", "--repo", REPO, "--dry_run", "out"], "not a model directory"),
        (["--model_dir", ".", "--repo", "model", "--dry_run", "out"], "--repo: expected owner/name"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"{PROG}: ") and said in line and line.count("\n") == 1


@pytest.mark.integration
def test_help_needs_no_torch() -> None:
    code = "import sys, satlisa.publish.command as c\ntry: c.parser().parse_args(['--help'])\nexcept SystemExit: pass\n"
    code += "assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "--with_code" in done.stdout, done.stderr
