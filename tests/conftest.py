"""What all tests share."""

import os
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

# Tiny models gain nothing from threads, and two that share a core wait for each other; subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = [
    "tests.helpers.model_fixtures",  # first: the others import it
    "tests.helpers.dataset_fixtures",
    "tests.helpers.hub_server",
    "tests.helpers.inference_fixtures",
    "tests.helpers.pages",
    "tests.helpers.published",
    "tests.helpers.resume_fixtures",
    "tests.helpers.saved_models",
    "tests.helpers.scenes",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: with several processes, none is left alone with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("integration")}
    items.sort(key=lambda item: item.path not in slow)  # stable: a file's tests stay together


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Configurations of the real models and real images; they lie beside the repository, not in it."""
    folder = Path(os.environ.get("SATLISA_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real configurations or images at {folder} (set SATLISA_SHARED_DATA)")
    return folder
