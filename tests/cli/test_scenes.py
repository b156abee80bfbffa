"""`inference.py` with scenes, on a tiny model."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from satlisa.cli import scenes as cli
from satlisa.runtime.signals import Interrupted
from tests.helpers.inference_fixtures import command, refused

rasterio = pytest.importorskip("rasterio", reason="the extra geo is not installed: bash setup.sh --geo")

from tests.helpers.scene_files import shapes, write  # noqa: E402


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write(tmp_path / "scene.tif", np.stack([shapes(70, 90)] * 3), photometric="rgb")


def base(model: Path, image: object) -> list[object]:
    size = ["--window", 64, "--overlap", 16, "--max_new_tokens", 2, "--device", "cpu"]
    return ["--model_dir", model, "--image", image, "--prompt", "Segment", *size]


def test_all_outputs_of_a_scene(
    model_dirs: dict[str, Path], scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"mask": "m.tif", "probability": "p.tif", "vectors": "v.geojson"}
    outputs = [part for name, file in names.items() for part in (f"--output_{name}", tmp_path / "out" / file)]
    call = [*base(model_dirs["masks"], scene), *outputs, "--overlay", tmp_path / "out" / "q.png", "--style"]
    assert command(*call) == 0
    streams = capsys.readouterr()
    assert "4 × <SEG>" in streams.out and "features" in streams.out
    expected = {"m.tif", "m.qml", "p.tif", "p.qml", "v.geojson", "v.qml", "q.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected
    with rasterio.open(tmp_path / "out" / "m.tif") as mask, rasterio.open(scene) as source:
        assert mask.transform == source.transform and mask.crs == source.crs and mask.shape == source.shape
        assert mask.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG" and mask.profile["tiled"]
        assert mask.tags()["SATLISA_PROMPT"] == "Segment" and json.loads(mask.tags()["SATLISA_CLASSES"])["0"] == "other"
        assert set(np.unique(mask.read(1))) <= {0, 1}


def test_a_question_about_a_scene(
    model_dirs: dict[str, Path], scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*base(model_dirs["text"], scene), "--output_vectors", tmp_path / "a.geojson") == 0
    assert len(json.loads((tmp_path / "a.geojson").read_text())["features"]) == 4
    assert sum(int(line.split(" × ")[0]) for line in capsys.readouterr().out.splitlines()) == 4
    assert command(*base(model_dirs["text"], scene), "--output_mask", tmp_path / "m.tif") == 1
    assert "no mask" in capsys.readouterr().err and not (tmp_path / "m.tif").exists()


def test_a_folder_of_scenes(model_dirs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiles, out = tmp_path / "tiles", tmp_path / "out"
    tiles.mkdir()
    for name in ("a", "b"):
        write(tiles / f"{name}.tif", shapes(70, 70))
    (tiles / "broken.tif").write_bytes(b"II*\0")
    call = [*base(model_dirs["masks"], f"{tiles}/*.tif"), "--output_mask", out, "--output_vectors", out / "*.fgb"]
    assert command(*call) == 1
    streams = capsys.readouterr()
    assert (
        "failed: " in streams.err
        and "broken.tif cannot be read" in streams.err
        and "3 scenes: 0 done before, 1 failed" in streams.err
    )
    assert {"a.tif", "a.fgb", "b.tif", "b.fgb"} <= {path.name for path in out.iterdir()}
    (tiles / "broken.tif").unlink()
    write(tiles / "c.tif", shapes(70, 70))
    assert command(*call, "--resume") == 0
    assert "3 scenes: 2 done before, 0 failed" in capsys.readouterr().err and (out / "c.fgb").exists()


def test_a_file_that_changed_starts_over(
    model_dirs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiles").mkdir()
    path = write(tmp_path / "tiles" / "a.tif", shapes(70, 70))
    whole = path.read_bytes()
    path.write_bytes(whole[:3000])
    call = [*base(model_dirs["masks"], path.parent), "--output_mask", tmp_path / "out", "--resume"]
    assert command(*call) == 1
    path.write_bytes(whole)
    assert command(*call) == 0
    assert "a.tif starts over" in capsys.readouterr().err
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"a.tif", "satlisa-scenes.json"}


def test_an_interrupted_run_says_how_it_continues(
    model_dirs: dict[str, Path],
    scene: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: object) -> None:
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(cli, "_answer", stop)
    assert command(*base(model_dirs["masks"], scene), "--output_mask", tmp_path / "m.tif") == 143
    assert "interrupted; --resume continues the run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--output_mask", "m.png", "--bands", "1"], "name a .tif file"),
        (["--output_vectors", "v.txt"], "expected .gpkg"),
        (["--bands", "9"], "--bands: "),
        (["--output_instances", "d", "--stretch", "none"], "--output_instances is for single pictures"),
        (["--bbox", "0,0,1,1"], "--bbox: "),
        (["--threshold", "2"], "--threshold: "),
        (["--output_mask", "{scene}"], "is the file of --image"),
    ],
)
def test_mistakes_cost_no_model(
    options: list[str],
    said: str,
    scene: Path,
    model_must_not_load: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call = [option.format(scene=scene) for option in options]
    assert said in refused(capsys, command(*base(Path("none"), scene), *call))


def test_without_the_extra(
    model_dirs: dict[str, Path], scene: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """GeoTIFFs are plain pictures then; options of scenes say what to install."""
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    plain = ["--model_dir", model_dirs["text"], "--image", scene, "--prompt", "x", "--max_new_tokens", 2]
    assert command(*plain, "--device", "cpu") == 0
    capsys.readouterr()
    assert "--output_vectors needs rasterio, which is not installed: bash setup.sh --geo" in refused(
        capsys, command(*plain, "--output_vectors", "v.gpkg")
    )
