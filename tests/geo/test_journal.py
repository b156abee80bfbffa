"""Killed at any moment and resumed, a run ends with the same bytes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rasterio", reason="the extra geo is not installed: bash setup.sh --geo")

from satlisa.errors import SatlisaError
from satlisa.geo import open_scene, segment, segment_scene
from satlisa.geo.answers import Encoder, Reply, to_answer
from satlisa.geo.journal import Journal
from tests.helpers.killed_scene import run
from tests.helpers.paths import ROOT
from tests.helpers.scene_files import see_mask, see_objects, shapes, write


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write(tmp_path / "s.tif", shapes(200, 260))


@pytest.mark.integration
def test_killed_at_ten_moments(scene: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    run(scene, whole)
    moments = ["1", "4", "7", "10", "12", "15", "17", "19", "mask", "vectors"]
    for moment in moments:
        folder = tmp_path / moment
        command = [sys.executable, "-m", "tests.helpers.killed_scene", str(scene), str(folder), moment]
        assert subprocess.run(command, cwd=ROOT).returncode == -9
        assert not (folder / "m.tif").exists()
        run(scene, folder, resume=True)
        for name in ("v.gpkg", "m.tif"):
            assert (folder / name).read_bytes() == (whole / name).read_bytes()
        assert sorted(path.name for path in folder.iterdir()) == ["m.tif", "v.gpkg"]


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".shp", ".geojson"])
def test_an_incomplete_record_is_answered_again(
    suffix: str, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"output_vectors": tmp_path / f"v{suffix}"}
    options = {"window": 64, "overlap": 16, "batch_size": 3}
    segment_scene(None, scene, "all", ask=see_objects, **names, **options)
    whole = {path.name: path.read_bytes() for path in tmp_path.glob("v.*")}
    assert whole

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(segment, "write_vectors", stop)
    with pytest.raises(KeyboardInterrupt):
        segment_scene(None, scene, "all", ask=see_objects, **names, **options)
    monkeypatch.undo()
    journal = tmp_path / f"v{suffix}.satlisa-windows" / "journal"
    data, asked = journal.read_bytes(), 0
    journal.write_bytes(data[: len(data) * 2 // 3] + b"\0damage")

    def ask(pictures, encode):  # type: ignore[no-untyped-def]
        nonlocal asked
        asked += len(pictures)
        return see_objects(pictures, encode)

    segment_scene(None, scene, "all", ask=ask, resume=True, **names, **options)
    assert 0 < asked < 20
    assert {path.name: path.read_bytes() for path in tmp_path.glob("v.*")} == whole


def test_a_journal_of_another_run_is_refused(scene: Path, tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise SatlisaError("stop")

    with pytest.raises(SatlisaError, match="stop"):
        segment_scene(None, scene, "all", ask=fail, output_mask=tmp_path / "m.tif")  # type: ignore[arg-type]
    with pytest.raises(SatlisaError, match=r"is of another run .prompt was 'all', is 'roads'.; leave out --resume"):
        segment_scene(None, scene, "roads", ask=see_mask, output_mask=tmp_path / "m.tif", resume=True)
    segment_scene(None, scene, "roads", ask=see_mask, output_mask=tmp_path / "m.tif")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.tif", "s.tif"]


def test_two_runs_of_one_output_do_not_mix(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("satlisa.runtime.lock._TIMEOUT", 0.1)
    output = tmp_path / "v.gpkg"

    def ask(*given: Any) -> Any:
        with pytest.raises(SatlisaError, match=r"v\.gpkg: another run is at work"):
            segment_scene(None, scene, "all", ask=see_objects, output_vectors=output)
        return see_objects(*given)

    segment_scene(None, scene, "all", ask=ask, output_vectors=output)
    assert sorted(path.name for path in tmp_path.glob("*v.gpkg*")) == ["v.gpkg"]


def test_an_interrupted_run_leaves_the_old_output(scene: Path, tmp_path: Path) -> None:
    (tmp_path / "m.tif").write_bytes(b"old")

    def fail(*_: object) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        segment_scene(None, scene, "all", ask=fail, output_mask=tmp_path / "m.tif")  # type: ignore[arg-type]
    assert (tmp_path / "m.tif").read_bytes() == b"old"


def test_answers_come_back_as_they_were(tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(size=(2, 20, 30)).astype(np.float32)
    encode = Encoder((20, 30), lambda rows: rows)
    answer = to_answer(Reply("Ünïcode <SEG><SEG>", [encode(one) for one in logits], [0.5, 0.25]))
    entries = [(logits[0] > 0, answer), (np.zeros((20, 30), dtype=bool), None)]
    with Journal(tmp_path / "j", {"a": 1}, resume=False) as journal:
        journal.append(entries)
    with Journal(tmp_path / "j", {"a": 1}, resume=True) as journal:
        ((first, second),) = journal.replay()
    assert np.array_equal(first[0], entries[0][0]) and second[1] is None
    assert first[1].text == answer.text and np.array_equal(first[1].levels, answer.levels)
    assert first[1].pieces == answer.pieces and np.array_equal(answer.levels > 0, logits.max(axis=0) > 0)


def test_scenes_are_opened_without_a_model(scene: Path) -> None:
    code = (
        f"import sys; from satlisa.geo import open_scene; open_scene({str(scene)!r}); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
    assert open_scene(scene).size == (200, 260)
