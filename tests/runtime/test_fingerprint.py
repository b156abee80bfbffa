"""Fingerprints of files, and what differs between two records."""

import json
from pathlib import Path

import pytest

from satlisa.errors import SatlisaError
from satlisa.pretrained.model_directory import fingerprint_model
from satlisa.runtime.fingerprint import differences, fingerprint_files


def test_the_fingerprint_of_a_folder_is_that_of_earlier_versions(tmp_path: Path) -> None:
    """It is stored in run.json and in checkpoints: with another value, no earlier run could be resumed."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(bytes(range(256)) * 20_000)  # 5 MB, more than is hashed
    (tmp_path / "subfolder").mkdir()
    (tmp_path / "subfolder" / "ignored").write_text("x")
    assert fingerprint_files(tmp_path) == "fb602ad63bda3a18"


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)  # root may read everything
    with pytest.raises(SatlisaError, match=r"cannot be read .*Permission denied"):
        fingerprint_files(tmp_path)


def test_differences_are_named() -> None:
    before, now = {"SEED": 0, "GONE": 1, "NONE": None, "same": [1]}, {"SEED": 4, "NEW": "x", "same": [1]}
    assert differences(before, now) == (
        "GONE was 1, is not set; NEW was not set, is 'x'; NONE was None, is not set; SEED was 0, is 4"
    )
    many = differences({}, {f"K{number}": number for number in range(8)})
    assert many.count("was not set") == 6 and many.endswith("; and 2 more")


def test_fingerprint_changes_with_names_and_contents(tmp_path: Path) -> None:
    adapter = tmp_path / "vlm_lora"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"a")
    (tmp_path / "train_log.jsonl").write_text("{}")
    found = [fingerprint_model(tmp_path)]
    (tmp_path / "train_log.jsonl").write_text("{}{}")
    assert fingerprint_model(tmp_path) == found[0] and len(found[0]) == 12
    (adapter / "adapter_model.safetensors").write_bytes(b"b")
    found.append(fingerprint_model(tmp_path))
    (adapter / "adapter_model.safetensors").rename(adapter / "other.safetensors")
    found.append(fingerprint_model(tmp_path))
    (tmp_path / "model_config.json").write_text(json.dumps({}))
    found.append(fingerprint_model(tmp_path))
    assert len(set(found)) == 4
