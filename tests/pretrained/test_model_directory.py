"""Model directories: bit-equal reloads, foreign spellings, refusals."""

import itertools
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

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
    with pytest.raises(SatlisaError, match="no such model directory"):
        find_model_dir("a" * 5000)  # no name of a file is as long
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


def with_other_weights(model: SatLisa) -> SatLisa:
    """As after another epoch: every trained tensor is different."""
    later = deepcopy(model)
    with torch.no_grad():
        for parameter in (p for p in later.parameters() if p.requires_grad):
            parameter += 0.01 * torch.randn_like(parameter)
    return later


def same(one: SatLisa, other: SatLisa) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def killed_at(call: str, number: int, action: Callable[[], None]) -> bool:
    """Run an action in a child that is gone before its call `number` of a function of `os`; whether it came so far."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] != 0
    original, calls = getattr(os, call), itertools.count()

    def run(*arguments: object, **options: object) -> object:
        return os._exit(9) if next(calls) == number else original(*arguments, **options)

    setattr(os, call, run)
    action()
    os._exit(0)


@pytest.mark.integration
@pytest.mark.parametrize(("call", "every"), [("replace", 1), ("rename", 1), ("fsync", 3)])
def test_a_kill_never_leaves_parts_of_two_models_that_load(call: str, every: int, saved: tuple[SatLisa, Path]) -> None:
    """Killed at any moment, a save leaves the old model, the new one, or a refusal; the next save repairs it."""
    model, folder = saved
    later, kinds = with_other_weights(model), set()
    for number in range(0, 100, every):
        save_model(model, folder)
        was_killed = killed_at(call, number, partial(save_model, later, folder))
        try:
            found = load_model(folder, "cpu")
            assert same(found, model) or same(found, later), f"{call} {number}"
            kinds.add("new" if same(found, later) else "old")
        except SatlisaError as error:
            assert "or was interrupted there: its parts do not belong together" in str(error)
            kinds.add("refused")
        if not was_killed:
            break
    assert not was_killed and {"new", "refused"} <= kinds
    assert {path.name for path in folder.iterdir()} == LAYOUT


@pytest.mark.parametrize("writer", ["torch.save", "save_file", "save_pretrained"])
def test_a_full_disk_leaves_the_model_as_it_was(
    writer: str, saved: tuple[SatLisa, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = saved

    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        if writer == "save_pretrained":
            patch.setattr(type(model.processor.tokenizer), writer, full)
        else:
            patch.setattr(f"satlisa.pretrained.model_directory.{writer}", full)
        with pytest.raises(OSError, match="No space"):
            save_model(with_other_weights(model), folder)
    assert {path.name for path in folder.iterdir()} == LAYOUT
    assert same(load_model(folder, "cpu"), model)


def test_files_of_the_user_stay(saved: tuple[SatLisa, Path]) -> None:
    model, folder = saved
    theirs = ["vlm_lora.old", "tokenizer.partial", "vlm_lora.partial", "seg_projector.pt.old", "x.old", "checkpoints"]
    for name in theirs:
        (folder / name).mkdir()
        (folder / name / "mine.txt").write_text("mine")
    save_model(model, folder)
    assert all((folder / name / "mine.txt").read_text() == "mine" for name in theirs)
    assert {path.name for path in folder.iterdir()} == LAYOUT | set(theirs)
    within = [folder / part / name for part in ("vlm_lora", "tokenizer") for name in ("README.md", "notes.json")]
    for path in within:
        path.write_text("mine")
    for stale in (folder / "vlm_lora" / "adapter_model.bin", folder / "tokenizer" / "merges.txt"):
        stale.write_text("of an earlier model")
    save_model(model, folder)
    assert all(path.read_text() == "mine" for path in within)
    assert not {"adapter_model.bin", "merges.txt"} & {path.name for path in folder.rglob("*")}


@pytest.mark.integration
def test_threads_may_load_at_the_same_time(saved: tuple[SatLisa, Path]) -> None:
    with ThreadPoolExecutor(4) as pool:
        models = list(pool.map(lambda _: load_model(saved[1], "cpu"), range(8)))
    for model in (*models, load_model(saved[1], "cpu")):
        assert same(model, saved[0])
    assert torch.get_default_dtype() == torch.float32


WIDTH, PROMPT = 32, 16


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 24), nn.GELU(), nn.Linear(24, PROMPT)], "a normalization besides"),
        ([nn.Linear(WIDTH, 24), nn.GELU(), nn.Linear(24, PROMPT), nn.LayerNorm(PROMPT)], "a normalization besides"),
        ([nn.Linear(WIDTH, 24), nn.GELU(), nn.Linear(24, 24), nn.GELU(), nn.Linear(24, PROMPT)], "3 linear layers"),
        ([nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, PROMPT)], "3 linear layers"),
        ([nn.Linear(WIDTH, PROMPT)], "1 linear layer"),
        ([nn.Linear(WIDTH, 24, bias=False), nn.GELU(), nn.Linear(24, PROMPT, bias=False)], "no bias"),
        ([nn.Linear(48, 24), nn.GELU(), nn.Linear(24, PROMPT)], r"expected two matrices that map 32 → h → 16"),
    ],
    ids=str,
)
def test_another_projector_is_called_what_it_is(
    layers: list[nn.Module], said: str, saved: tuple[SatLisa, Path]
) -> None:
    torch.save(nn.Sequential(*layers).state_dict(), saved[1] / "seg_projector.pt")
    with pytest.raises(SatlisaError, match=f"seg_projector.pt: .*{said}"):
        load_model(saved[1], "cpu")
