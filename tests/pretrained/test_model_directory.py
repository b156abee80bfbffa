"""Model directories: bit-equal reloads, foreign spellings, refusals."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from satlisa.errors import SatlisaError
from satlisa.model.satlisa import SatLisa
from satlisa.pretrained.model_directory import find_model_dir, load_model, save_model
from tests.helpers.saved_models import cut, outputs

LAYOUT = {
    "model_config.json",
    "vlm_lora",
    "seg_projector.pt",
    "sam_mask_decoder.pt",
    "tokenizer",
    "seg_token.safetensors",
}


def test_layout_and_bit_equal_reload(saved: tuple[SatLisa, Path]) -> None:
    model, folder = saved
    assert {path.name for path in folder.iterdir()} == LAYOUT
    assert {p.name for p in (folder / "vlm_lora").iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    again = load_model(folder, "cpu")
    assert not again.training
    for a, b in zip(outputs(model), outputs(again), strict=True):
        assert torch.equal(a, b)


def test_a_copied_directory_works_elsewhere(saved: tuple[SatLisa, Path], tmp_path: Path) -> None:
    folder = saved[1].rename(tmp_path / "elsewhere")
    assert load_model(folder, "cpu").seg_token_id == 263


def test_saving_twice_replaces(saved: tuple[SatLisa, Path]) -> None:
    model, folder = saved
    with torch.no_grad():
        model.seg_row += 1
    save_model(model, folder)
    assert {path.name for path in folder.iterdir()} == LAYOUT
    assert torch.equal(load_model(folder, "cpu").seg_row, model.seg_row)


@pytest.mark.integration
@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "vlm_lora" / "adapter_model.safetensors").unlink(),
        lambda folder: (folder / "vlm_lora" / "adapter_config.json").write_text("{"),
        lambda folder: cut(folder / "vlm_lora" / "adapter_model.safetensors"),
        lambda folder: cut(folder / "seg_token.safetensors"),
        lambda folder: cut(folder / "seg_projector.pt"),
        lambda folder: cut(folder / "sam_mask_decoder.pt"),
        lambda folder: [path.unlink() for path in (folder / "tokenizer").iterdir()],
        lambda folder: cut(folder / "model_config.json"),
        lambda folder: torch.save([1, 2], folder / "seg_projector.pt"),
    ],
)
def test_damaged_files_are_named(saved: tuple[SatLisa, Path], damage: Callable[[Path], object]) -> None:
    damage(saved[1])
    with pytest.raises(SatlisaError, match=str(saved[1])):
        load_model(saved[1], "cpu")


def test_wrong_places(tmp_path: Path, saved: tuple[SatLisa, Path]) -> None:
    with pytest.raises(SatlisaError, match="no such model directory"):
        find_model_dir(tmp_path / "nowhere")
    with pytest.raises(SatlisaError, match="vlm_lora"):
        find_model_dir(tmp_path)
    (saved[1] / "seg_projector.pt").unlink()
    with pytest.raises(SatlisaError, match=r"seg_projector\.pt missing"):
        load_model(saved[1], "cpu")


def test_hub_ids_go_through_snapshot_download(saved: tuple[SatLisa, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        "satlisa.pretrained.model_directory.snapshot_download", lambda name: asked.append(name) or str(saved[1])
    )
    assert find_model_dir("someone/satellite-model") == saved[1]
    assert asked == ["someone/satellite-model"]


def test_a_tokenizer_of_another_model_is_noticed(saved: tuple[SatLisa, Path]) -> None:
    config = json.loads((saved[1] / "model_config.json").read_text())
    (saved[1] / "model_config.json").write_text(json.dumps({**config, "seg_token_id": 7}))
    with pytest.raises(SatlisaError, match=r"token 7.*263"):
        load_model(saved[1], "cpu")


def test_unknown_keys_survive(saved: tuple[SatLisa, Path]) -> None:
    config = json.loads((saved[1] / "model_config.json").read_text())
    (saved[1] / "model_config.json").write_text(json.dumps({**config, "their_key": [1, 2]}))
    assert load_model(saved[1], "cpu").config.to_dict()["their_key"] == [1, 2]
