"""Training on from a trained model (INIT_FROM), and a finished run with more epochs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from satlisa.config import ModelConfig
from satlisa.data.rows import read_sample
from satlisa.data.sampler import shuffled
from satlisa.errors import SatlisaError
from satlisa.pretrained.model_directory import load_model
from satlisa.processing.collator import collate
from satlisa.processing.processor import encode_sample
from satlisa.training import train as run_module
from satlisa.training.fault_tolerance.resume import choose_start
from satlisa.training.optimizer import continue_schedule
from tests.helpers.runs import log_of, rows, settings, write_dataset

pytestmark = pytest.mark.integration

ROWS = [row for row in rows(20) if row["conversations"] != "{broken"][:8]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("further") / "data"
    write_dataset(folder, {"train": ROWS})
    return folder


@pytest.fixture(scope="module")
def trained(tiny_config: ModelConfig, data: Path) -> Path:
    output = data.parent / "first"
    return run_module.train(settings(tiny_config, data, output, EPOCHS="2", SEG_TASKS="roads"))


def further(tiny_config: ModelConfig, data: Path, output: Path, **more: str) -> Any:
    """Settings without base models: INIT_FROM brings them."""
    made = {"EPOCHS": "1", **more}
    return settings(tiny_config, data, output, VLM_MODEL="", SAM_MODEL="", **made)


def loss_of(folder: Path) -> float:
    """Loss of a loaded model on all rows, as one effective batch."""
    model = load_model(folder, "cpu")
    order = shuffled(len(ROWS), 0, 0)
    samples = [read_sample(ROWS[place], int(place)) for place in order]
    encoded = [encode_sample(sample, model.processor, model.segmenter.inputs, model.config) for sample in samples]
    with torch.no_grad():
        losses = model(collate(encoded, model.processor.tokenizer.pad_token_id)).losses
    return float(losses.total(model.config, losses.num_tokens, losses.num_masks))


def test_the_first_loss_is_that_of_the_model_that_it_starts_from(
    tiny_config: ModelConfig, data: Path, trained: Path, tmp_path: Path
) -> None:
    new = run_module.train(further(tiny_config, data, tmp_path / "new", INIT_FROM=str(trained)))
    (first, *_), (fresh, *_) = log_of(new), log_of(trained)
    assert first["loss"] == pytest.approx(loss_of(trained), rel=1e-4)
    assert abs(first["loss"] - fresh["loss"]) > 0.05  # not that of the base models
    assert json.loads((new / "model_config.json").read_text())["seg_tasks"] == ["roads"]
    assert load_model(new, "cpu").config.vlm_model_id == tiny_config.vlm_model_id
    assert not (trained / "checkpoints" / "step-00000099").exists()


def test_a_new_run_has_its_own_optimizer_and_resumes_bit_identical(
    tiny_config: ModelConfig, data: Path, trained: Path, tmp_path: Path
) -> None:
    whole = run_module.train(further(tiny_config, data, tmp_path / "a", INIT_FROM=str(trained), EPOCHS="2"))
    moved = tmp_path / "a copy"
    shutil.copytree(trained, moved)
    part = further(tiny_config, data, tmp_path / "b", INIT_FROM=str(moved), EPOCHS="2")
    run_module.train(part)
    last = max((tmp_path / "b" / "checkpoints").glob("step-*"))
    shutil.rmtree(last)
    (tmp_path / "b" / "train_summary.json").unlink()
    run_module.train(part)
    assert [record["loss"] for record in log_of(whole)] == [record["loss"] for record in log_of(tmp_path / "b")]
    for name in ("seg_projector.pt", "sam_mask_decoder.pt"):
        one, other = (torch.load(folder / name, weights_only=True) for folder in (whole, tmp_path / "b"))
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_what_does_not_go_together_is_refused(
    tiny_config: ModelConfig, data: Path, trained: Path, tmp_path: Path
) -> None:
    with pytest.raises(SatlisaError, match=r"OUTPUT_DIR: .* is the model of INIT_FROM"):
        run_module.train(further(tiny_config, data, trained, INIT_FROM=str(trained), OVERWRITE="1"))
    with pytest.raises(SatlisaError, match=r"MODEL_CONFIG: INIT_FROM brings"):
        path = str(trained / "model_config.json")
        further(tiny_config, data, tmp_path, INIT_FROM=str(trained), MODEL_CONFIG=path).new_model_config()
    with pytest.raises(SatlisaError, match=r"INIT_FROM: .*no such model directory"):
        further(tiny_config, data, tmp_path, INIT_FROM=str(tmp_path / "nothing")).new_model_config()
    with pytest.raises(SatlisaError, match="INIT_FROM"):
        run_module.train(settings(tiny_config, data, tmp_path / "x", RESUME=str(tmp_path)))


def test_vocabulary_rows_that_training_would_lose_are_refused(
    tiny_config: ModelConfig, data: Path, trained: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    other = tmp_path / "other"
    shutil.copytree(trained, other)
    file = other / "vlm_lora" / "adapter_model.safetensors"
    tensors, model = load_file(file), load_model(trained, "cpu")
    matrix = model.qwen.get_input_embeddings().weight.detach().clone()
    name = "base_model.model.model.language_model.embed_tokens.weight"
    save_file({**tensors, name: matrix}, file)
    same = further(tiny_config, data, tmp_path / "same", INIT_FROM=str(other))
    assert run_module.train(same).is_dir()  # the base model's own rows: nothing is lost
    matrix[5] += 1
    save_file({**tensors, name: matrix}, file)
    with pytest.raises(SatlisaError, match="trained vocabulary rows besides <SEG>"):
        run_module.train(further(tiny_config, data, tmp_path / "lost", INIT_FROM=str(other)))


def test_a_finished_run_goes_on_with_more_epochs(tiny_config: ModelConfig, data: Path, tmp_path: Path) -> None:
    folder = run_module.train(settings(tiny_config, data, tmp_path / "run", EPOCHS="2"))
    before = log_of(folder)
    more = settings(tiny_config, data, folder, EPOCHS="4")
    run_module.train(more)
    after = log_of(folder)
    assert [record["step"] for record in after] == [1, 2, 3, 4] and after[:2] == before
    planned = run_module.train(settings(tiny_config, data, tmp_path / "planned", EPOCHS="4"))
    assert [r["lr"] for r in after[2:]] == pytest.approx([r["lr"] for r in log_of(planned)[2:]])
    assert after[2]["lr"] > 0
    assert json.loads((folder / "train_summary.json").read_text())["steps"] == 4
    with pytest.raises(SatlisaError, match="EPOCHS was 4, is 2"):
        run_module.train(settings(tiny_config, data, folder, EPOCHS="2"))


def test_an_extension_that_was_killed_at_its_start_goes_on(
    tiny_config: ModelConfig, data: Path, tmp_path: Path
) -> None:
    """A kill between the new record and the removal of the old summary, and one before the first new checkpoint."""
    folder = run_module.train(settings(tiny_config, data, tmp_path / "run", EPOCHS="1"))
    more, summary = settings(tiny_config, data, folder, EPOCHS="2"), (folder / "train_summary.json").read_bytes()
    checkpoints = {path.name for path in (folder / "checkpoints").glob("step-*")}
    run_module.train(more)
    for path in (folder / "checkpoints").glob("step-*"):
        if path.name not in checkpoints:
            shutil.rmtree(path)
    record = json.loads((folder / "checkpoints" / "run.json").read_text())["identity"]
    for content in (summary, None):
        (folder / "train_summary.json").unlink(missing_ok=True)
        if content:
            (folder / "train_summary.json").write_bytes(content)
        start = choose_start(more.resolve(4), record)
        assert start.checkpoint is not None and not start.is_finished and not start.is_new
    run_module.train(more)
    assert [entry["step"] for entry in log_of(folder)] == [1, 2]


def test_the_schedule_continues_where_a_longer_one_would_be() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=2.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 10)
    scheduler.load_state_dict({**scheduler.state_dict(), "last_epoch": 4, "_last_lr": [0.0], "lr_lambdas": [None]})
    optimizer.param_groups[0]["lr"] = 0.0
    assert continue_schedule(optimizer, scheduler) == [pytest.approx(1.2)]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1.2) == scheduler.get_last_lr()[0]
