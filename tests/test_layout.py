"""The path of a module names the file that tests it."""

from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

TESTS, PACKAGE = ROOT / "tests", ROOT / "satlisa"
COVERED_ELSEWHERE = {  # modules without a test file of their own, and the file that fails when they break
    "check/__main__.py": "check/test_command.py",
    "check/duplicates.py": "check/test_problems.py",
    "check/listing.py": "check/test_problems.py",
    "check/parts.py": "check/test_check.py",
    "check/sheet.py": "check/test_report.py",
    "convert/__main__.py": "convert/test_command.py",
    "convert/problems.py": "convert/test_command.py",
    "convert/scene.py": "convert/test_questions.py",
    "convert/tables.py": "convert/test_captions.py",
    "data/coordinates.py": "data/test_polygons.py",
    "data/fingerprint.py": "training/fault_tolerance/test_run_identity.py",
    "data/synthetic/terrain.py": "data/synthetic/test_painter.py",
    "geo/answering.py": "geo/test_segment.py",
    "geo/answers.py": "geo/test_journal.py",
    "geo/bands.py": "geo/test_scene.py",
    "geo/features.py": "geo/test_segment.py",
    "geo/levels.py": "geo/test_scene.py",
    "geo/places.py": "geo/test_segment.py",
    "geo/quicklook.py": "cli/test_scenes.py",
    "geo/raster_files.py": "geo/test_segment.py",
    "geo/request.py": "geo/test_segment.py",
    "geo/stitch.py": "geo/test_segment.py",
    "geo/vector_files.py": "geo/test_segment.py",
    "pretrained/trained_parts.py": "pretrained/test_model_directory.py",
    "processing/sam_inputs.py": "processing/test_embedding_cache.py",
    "publish/__main__.py": "publish/test_command.py",
    "runtime/versions.py": "evaluation/test_evaluate.py",
    "training/state.py": "training/test_trainer.py",
    "training/step_log.py": "training/test_train.py",
    "training/summary.py": "training/test_train.py",
    "web/__main__.py": "web/test_serving.py",
    "web/bits.py": "web/test_found.py",
    "web/events.py": "web/test_app.py",
}
MODULES = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
MIRRORED = [path for path in TESTS.glob("*/**/test_*.py") if path.relative_to(TESTS).parts[0] != "scenarios"]


def name_of(path: Path) -> str:
    return path.relative_to(TESTS).as_posix()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_module_has_its_test_file(module: str) -> None:
    own = (Path(module).parent / f"test_{Path(module).name}").as_posix()
    covered = COVERED_ELSEWHERE.get(module, own)
    assert (TESTS / covered).is_file(), f"satlisa/{module}: write tests/{own}"
    assert covered == own or not (TESTS / own).exists(), f"{module} has tests/{own}; take it from COVERED_ELSEWHERE"


def test_the_list_of_exceptions_names_modules() -> None:
    assert set(COVERED_ELSEWHERE) <= MODULES


@pytest.mark.parametrize("path", MIRRORED, ids=name_of)
def test_every_test_file_names_its_module(path: Path) -> None:
    """test_<module>.py, test_<module>_<part>.py, or the name of a folder (demo/weights)."""
    place = PACKAGE / path.relative_to(TESTS).parent
    subject = path.stem.removeprefix("test_")
    names = [item.stem for item in place.iterdir() if not item.name.startswith("_")]
    assert any(f"{subject}_".startswith(f"{name}_") for name in names), f"{name_of(path)}: no such module in {place}"


def test_test_files_import_nothing_from_each_other() -> None:
    for path in TESTS.rglob("test_*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        found = [line for line in lines if line.startswith("from tests.") and not line.startswith("from tests.helpers")]
        assert not found, f"{name_of(path)}: {found[0]}; move it to tests/helpers/"
