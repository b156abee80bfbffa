"""MERGE_INIT: the LoRA layers of INIT_FROM become part of the VLM, which the new model directory holds."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from satlisa.config import ModelConfig
from satlisa.data.rows import read_sample
from satlisa.data.sampler import shuffled
from satlisa.errors import SatlisaError
from satlisa.pretrained.merging import merge_model
from satlisa.pretrained.model_directory import fingerprint_model, load_model
from satlisa.processing.collator import collate
from satlisa.processing.processor import encode_sample
from satlisa.training import train as run_module
from satlisa.training.fault_tolerance.resume import choose_start
from satlisa.training.settings import TrainConfig
from tests.helpers.runs import log_of, rows, settings, write_dataset

pytestmark = pytest.mark.integration

ROWS = [row for row in rows(20) if row["conversations"] != "{broken"][:8]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("merged") / "data"
    write_dataset(folder, {"train": ROWS})
    return folder


@pytest.fixture(scope="module")
def trained(tiny_config: ModelConfig, data: Path) -> Path:
    return run_module.train(settings(tiny_config, data, data.parent / "first", EPOCHS="1"))


@pytest.fixture(scope="module")
def second(tiny_config: ModelConfig, data: Path, trained: Path) -> Path:
    """A run on the merged VLM of the first one."""
    return run_module.train(on(tiny_config, data, data.parent / "second", trained, EPOCHS="2"))


def on(tiny_config: ModelConfig, data: Path, output: Path, source: Path, **more: str) -> TrainConfig:
    made = {"EPOCHS": "1", "MERGE_INIT": "1", "INIT_FROM": str(source), "VLM_MODEL": "", "SAM_MODEL": "", **more}
    return settings(tiny_config, data, output, **made)


def loss_of(folder: Path) -> float:
    """Loss of a loaded model on all rows, as one effective batch."""
    model = load_model(folder, "cpu")
    samples = [read_sample(ROWS[place], int(place)) for place in shuffled(len(ROWS), 0, 0)]
    encoded = [encode_sample(sample, model.processor, model.segmenter.inputs, model.config) for sample in samples]
    with torch.no_grad():
        losses = model(collate(encoded, model.processor.tokenizer.pad_token_id)).losses
    return float(losses.total(model.config, losses.num_tokens, losses.num_masks))


def lora_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "vlm_lora" / "adapter_model.safetensors")


def content(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "model_config.json").read_text())
    return loaded


def test_the_first_loss_is_that_of_the_merged_model_and_the_folder_is_complete(
    trained: Path, second: Path, tmp_path: Path
) -> None:
    assert log_of(second)[0]["loss"] == pytest.approx(loss_of(trained), rel=1e-4)
    assert content(second)["vlm_model_id"] == "./merged_vlm"
    fresh, old = lora_of(second), lora_of(trained)
    assert fresh.keys() == old.keys() and not any(torch.equal(fresh[name], old[name]) for name in fresh)
    moved = tmp_path / "moved"
    shutil.copytree(second, moved)
    assert loss_of(moved) == pytest.approx(loss_of(second)) and loss_of(moved) < log_of(second)[0]["loss"]
    names = {path.name for path in second.iterdir()}
    assert not any("partial" in name or "incomplete" in name for name in names)
    held = load_file(max((second / "checkpoints").glob("step-*")) / "trained.safetensors")
    assert not [name for name in held if name.startswith("vlm.") and "lora_" not in name]  # not the VLM again


def test_a_run_resumes_on_its_own_vlm(tiny_config: ModelConfig, data: Path, trained: Path, second: Path) -> None:
    part = data.parent / "part"
    shutil.copytree(second, part)
    shutil.rmtree(max((part / "checkpoints").glob("step-*")))
    (part / "train_summary.json").unlink()
    stamp = (part / "merged_vlm" / "config.json").stat().st_mtime_ns
    wanted = on(tiny_config, data, part, trained, EPOCHS="2")
    shutil.move(part / "merged_vlm", data.parent / "away")
    with pytest.raises(SatlisaError, match=r"merged_vlm is not there, the VLM that this run trains on"):
        run_module.train(wanted)
    shutil.move(data.parent / "away", part / "merged_vlm")
    run_module.train(wanted)
    assert [r["loss"] for r in log_of(part)] == [r["loss"] for r in log_of(second)]
    assert all(torch.equal(tensor, lora_of(second)[name]) for name, tensor in lora_of(part).items())
    assert (part / "merged_vlm" / "config.json").stat().st_mtime_ns == stamp
    with pytest.raises(SatlisaError, match="MERGE_INIT was True, is False"):
        run_module.train(on(tiny_config, data, part, trained, EPOCHS="2", MERGE_INIT="0"))


@pytest.mark.parametrize("merge", ["0", "1"])
def test_a_third_run_starts_from_the_second(
    merge: str, tiny_config: ModelConfig, data: Path, second: Path, tmp_path: Path
) -> None:
    """With its LoRA kept, or merged too: either way the new folder holds its VLM."""
    third = run_module.train(on(tiny_config, data, tmp_path / "third", second, MERGE_INIT=merge))
    assert log_of(third)[0]["loss"] == pytest.approx(loss_of(second), rel=1e-4)
    assert content(third)["vlm_model_id"] == "./merged_vlm" and load_model(third, "cpu")
    shard = "merged_vlm/model-00001-of-00001.safetensors"
    same = (third / shard).read_bytes() == (second / shard).read_bytes()
    assert same is (merge == "0")


def test_a_merged_model_is_trained_on_with_fresh_layers(
    tiny_config: ModelConfig, data: Path, trained: Path, tmp_path: Path
) -> None:
    merge_model(trained, tmp_path / "m")
    new = run_module.train(on(tiny_config, data, tmp_path / "new", tmp_path / "m", MERGE_INIT="0"))
    assert log_of(new)[0]["loss"] == pytest.approx(loss_of(trained), rel=1e-4)
    assert content(new)["vlm_model_id"] == "./merged_vlm" and (new / "vlm_lora").is_dir()


def test_a_published_folder_with_other_names_and_vocabulary_rows(
    tiny_config: ModelConfig, data: Path, trained: Path, tmp_path: Path
) -> None:
    """Names of other programs, and rows that training cannot keep in its `<SEG>` row but a merge can."""
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    projector = torch.load(other / "seg_projector.pt", weights_only=True)
    torch.save({"state": {f"mlp.{name}": tensor for name, tensor in projector.items()}}, other / "seg_projector.pt")
    decoder = torch.load(other / "sam_mask_decoder.pt", weights_only=True)
    torch.save({f"mask_decoder.{name}": tensor for name, tensor in decoder.items()}, other / "sam_mask_decoder.pt")
    file = other / "vlm_lora" / "adapter_model.safetensors"
    matrix = load_model(trained, "cpu").qwen.get_input_embeddings().weight.detach().clone()
    matrix[5] += 1
    save_file({**load_file(file), "base_model.model.model.language_model.embed_tokens.weight": matrix}, file)
    with pytest.raises(SatlisaError, match="MERGE_INIT=1 merges them into the VLM"):
        run_module.train(on(tiny_config, data, tmp_path / "lost", other, MERGE_INIT="0"))
    new = run_module.train(on(tiny_config, data, tmp_path / "new", other))
    assert log_of(new)[0]["loss"] == pytest.approx(loss_of(other), rel=1e-4)
    assert torch.equal(load_model(new, "cpu").qwen.get_input_embeddings().weight[5], matrix[5])


def test_a_start_that_fails_leaves_the_folder_as_it_is(
    tiny_config: ModelConfig, data: Path, trained: Path, second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new folder can be used again, an overwritten one still has its model, until the new VLM is in its place."""
    run, before = tmp_path / "run", fingerprint_model(second)
    shutil.copytree(second, run)
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "load_to_train", lambda *_, **__: pytest.fail("no memory"))
        for folder in (run, tmp_path / "fresh"):
            with pytest.raises(pytest.fail.Exception):
                run_module.train(on(tiny_config, data, folder, trained, SEED="1", OVERWRITE="1"))
    assert fingerprint_model(run) == before and load_model(run, "cpu")
    assert list((tmp_path / "fresh").iterdir()) == []
    (tmp_path / "fresh" / "merged_vlm-new.satlisa-partial").mkdir()  # of a killed start
    again = on(tiny_config, data, tmp_path / "fresh", trained, RESUME="never").resolve(4)
    assert choose_start(again, {}).is_new
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "fit", lambda _: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            run_module.train(on(tiny_config, data, run, trained, SEED="1", OVERWRITE="1"))
    with pytest.raises(SatlisaError, match="its parts do not belong together"):
        load_model(run, "cpu")
    run_module.train(on(tiny_config, data, run, trained, SEED="1"))
    assert load_model(run, "cpu") and fingerprint_model(run) != before


def test_without_a_model_there_is_nothing_to_merge(
    tiny_config: ModelConfig, data: Path, second: Path, tmp_path: Path
) -> None:
    with pytest.raises(SatlisaError, match=r"MERGE_INIT: there is no model to merge; name it with INIT_FROM="):
        settings(tiny_config, data, tmp_path, MERGE_INIT="1")
    path = str(second / "model_config.json")
    alone = settings(tiny_config, data, tmp_path / "x", MODEL_CONFIG=path, VLM_MODEL="")
    with pytest.raises(SatlisaError, match=r"'./merged_vlm' lies in a model directory; train on .* INIT_FROM="):
        alone.new_model_config()
    (tmp_path / "mine" / "merged_vlm").mkdir(parents=True)
    (tmp_path / "mine" / "merged_vlm" / "notes.txt").write_text("mine")
    with pytest.raises(SatlisaError, match=r"OUTPUT_DIR: .*mine is not empty"):
        run_module.train(on(tiny_config, data, tmp_path / "mine", second))
