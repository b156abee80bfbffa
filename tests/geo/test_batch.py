"""Folders and patterns of scenes."""

from pathlib import Path

import pytest

pytest.importorskip("rasterio", reason="the extra geo is not installed: bash setup.sh --geo")

from satlisa.errors import SatlisaError
from satlisa.geo.batch import Done, find_scenes, output_of, run_all


def test_files_of_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("b.tif", "a.TIFF", "c.txt"):
        (tmp_path / name).touch()
    assert find_scenes(str(tmp_path)) == [tmp_path / "a.TIFF", tmp_path / "b.tif"]
    assert find_scenes(f"{tmp_path}/*.tif") == [tmp_path / "b.tif"]
    assert find_scenes(f"{tmp_path}/b.tif") is None
    (tmp_path / "b.tiff").touch()
    with pytest.raises(SatlisaError, match="would have one name; rename one"):
        find_scenes(str(tmp_path))
    with pytest.raises(SatlisaError, match="no raster files"):
        find_scenes(f"{tmp_path}/*.jp2")


def test_outputs_of_each_scene(tmp_path: Path) -> None:
    scene = Path("tiles/x.tif")
    assert output_of(tmp_path, scene, ".gpkg", "--output_vectors") == tmp_path / "x.gpkg"
    assert output_of(tmp_path / "*_b.fgb", scene, ".gpkg", "--output_vectors") == tmp_path / "x_b.fgb"
    with pytest.raises(SatlisaError, match=r"all\.gpkg would be the output of every scene.*\*\.gpkg"):
        output_of(tmp_path / "all.gpkg", scene, ".gpkg", "--output_vectors")


def test_what_is_done(tmp_path: Path) -> None:
    output = tmp_path / "m.tif"
    output.touch()
    done = Done.read(tmp_path, resume=False)
    done.add(Path("a.tif"), {"x": (1, 2)}, [output])
    again = Done.read(tmp_path, resume=True)
    assert again.holds(Path("a.tif"), {"x": (1, 2)})
    assert not again.holds(Path("a.tif"), {"x": (1, 3)}) and not again.holds(Path("b.tif"), {"x": (1, 2)})
    output.unlink()
    assert not again.holds(Path("a.tif"), {"x": (1, 2)})
    (tmp_path / "satlisa-scenes.json").write_text("{")
    assert not Done.read(tmp_path, resume=True).entries


def test_errors_are_named_and_others_go_on() -> None:
    steps, worked = [], []

    def work(path: Path) -> None:
        if path.stem == "bad":
            raise SatlisaError("is damaged")
        worked.append(path.stem)

    assert run_all([Path("a.tif"), Path("bad.tif"), Path("c.tif")], work, steps.append) == {
        Path("bad.tif"): "is damaged"
    }
    assert worked == ["a", "c"] and steps == [1, 2, 3]
