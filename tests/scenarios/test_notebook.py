"""notebooks/quickstart.ipynb, run as a newcomer runs it, in a folder with a space, on a demo of two steps."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.paths import ROOT

nbclient = pytest.importorskip("nbclient", reason="pip install -r requirements-dev.txt")
nbformat = pytest.importorskip("nbformat", reason="pip install -r requirements-dev.txt")

NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"
SHORT = {
    "MAX_STEPS": "2",
    "MAX_SAMPLES": "20",
    "VAL_SAMPLES": "2",
    "BATCH_SIZE": "2",
    "GRAD_ACCUM": "1",
    "SPLIT": "validation",  # whose scenes are drawn sooner
    "SAMPLES_PER_TASK": "1",
}


@pytest.fixture(scope="module")
def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_committed_without_outputs(notebook: Any) -> None:
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None, cell.id
        assert not re.search(r"/(home|tmp|root|Users|content)/", cell.source), cell.id
    assert "colab.research.google.com/github/" in notebook.cells[0].source


def test_it_names_pages_that_exist(notebook: Any) -> None:
    named = re.findall(r"docs/\w+\.md", "".join(cell.source for cell in notebook.cells))
    assert named and all((ROOT / name).is_file() for name in named)


@pytest.mark.integration
def test_all_cells_run_outside_of_the_checkout(notebook: Any, tmp_path: Path) -> None:
    place = tmp_path / "My Drive"
    place.mkdir()
    (place / "code").symlink_to(ROOT)
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(place)}})
    client.execute(env={**os.environ, **SHORT, "PYTHONPATH": str(place / "code"), "DEVICE": "cpu"})
    cells = {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}
    assert all(cell.execution_count for cell in cells.values())
    for name in ("ask", "instances"):
        (shown,) = [output.data for output in cells[name].outputs if "data" in output]
        assert 'src="data:image/png;base64,' in shown["text/html"] and "<figcaption>" in shown["text/html"]
    for name in ("curve", "report"):
        assert any("image/png" in output.get("data", {}) for output in cells[name].outputs), name
    assert not [output for cell in cells.values() for output in cell.outputs if output.output_type == "error"]
    assert (place / "demo_eval" / "REPORT.md").is_file()
    assert not (place / "satlisa_code").exists()  # nothing was cloned
