"""Variables of a training run: their values, refusals, and what a user reads about them."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from satlisa.training.settings import TrainConfig, help_text, markdown_table, variables
from tests.helpers.paths import ROOT

HUB_DATASET = "rahuldshetty/satellite-multitask-omni"


def test_defaults_are_those_of_the_contract() -> None:
    config = TrainConfig.from_env({})
    assert (config.epochs, config.learning_rate, config.warmup_ratio) == (2, 2e-4, 0.05)
    assert (config.num_workers, config.max_samples, config.dataset) == (0, 0, HUB_DATASET)
    assert set(config.origins.values()) == {"default"}
    assert TrainConfig.from_env({}) == TrainConfig()


@pytest.mark.parametrize(
    ("detected", "given", "batch"),
    [
        (1, {}, (1, 16)),
        (2, {}, (2, 8)),
        (2, {"BATCH_SIZE": "16"}, (16, 1)),
        (2, {"BATCH_SIZE": "3"}, (3, 5)),
        (1, {"BATCH_SIZE": "64"}, (64, 1)),
        (2, {"GRAD_ACCUM": "4"}, (2, 4)),
        (2, {"BATCH_SIZE": "1", "GRAD_ACCUM": "16"}, (1, 16)),
    ],
)
def test_batch_and_accumulation(detected: int, given: dict[str, str], batch: tuple[int, int]) -> None:
    config = TrainConfig.from_env(given).resolve(detected)
    assert (config.batch_size, config.grad_accum) == batch
    assert config.origins["batch_size"] == ("environment" if "BATCH_SIZE" in given else "hardware")
    assert config.origins["grad_accum"] == ("environment" if "GRAD_ACCUM" in given else "16 // BATCH_SIZE")


GOOD: dict[str, tuple[str, Any]] = {
    "PRESET": ("demo", "demo"),
    "DATASET": ("./chips", "./chips"),
    "OUTPUT_DIR": ("runs/one", "runs/one"),
    "OVERWRITE": ("1", True),
    "RESUME": ("never", "never"),
    "CHECKPOINT_EVERY": ("2.5m", "2.5m"),
    "KEEP_CHECKPOINTS": ("4", 4),
    "BATCH_SIZE": (" 4 ", 4),
    "GRAD_ACCUM": ("2", 2),
    "MAX_SAMPLES": ("100", 100),
    "MAX_SKIP": ("0.2", 0.2),
    "STREAMING": ("1", True),
    "SHUFFLE_BUFFER": ("50", 50),
    "NUM_WORKERS": ("3", 3),
    "EPOCHS": ("5", 5),
    "MAX_STEPS": ("7", 7),
    "LEARNING_RATE": ("1e-3", 1e-3),
    "PROJECTOR_LR_FACTOR": ("3", 3.0),
    "WARMUP_RATIO": ("1", 1.0),
    "WEIGHT_DECAY": ("0.01", 0.01),
    "MAX_GRAD_NORM": ("0.5", 0.5),
    "MASK_LOSS_PER": ("row", "row"),
    "PRECISION": ("fp16", "fp16"),
    "DEVICE": ("cpu", "cpu"),
    "SEED": ("42", 42),
    "VAL_SAMPLES": ("0", 0),
    "CACHE_SAM": ("cache", "cache"),
    "CACHE_SAM_GB": ("0.5", 0.5),
    "CACHE_MEMORY_GB": ("1.5", 1.5),
    "GRAD_CHECKPOINT": ("1", True),
    "SEG_TASKS": ("flood_assessment", "flood_assessment"),
    "INIT_FROM": ("runs/a", "runs/a"),
    "MERGE_INIT": ("0", False),
    "REPORT_TO": ("tensorboard", "tensorboard"),
    "MODEL_CONFIG": ("mine.json", "mine.json"),
    "VLM_MODEL": ("./qwen", "./qwen"),
    "SAM_MODEL": ("./sam", "./sam"),
}


def test_every_variable_has_a_case_here() -> None:
    assert [item.name.upper() for item in variables()] == sorted(GOOD, key=_declared)
    assert all(item.metadata["meaning"] for item in variables())


def _declared(name: str) -> int:
    return [item.name for item in fields(TrainConfig)].index(name.lower())


@pytest.mark.parametrize("name", GOOD)
def test_each_variable_is_read(name: str) -> None:
    text, value = GOOD[name]
    config = TrainConfig.from_env({name: text})
    found = getattr(config, name.lower())
    assert found == value and type(found) is type(value)
    assert config.origins[name.lower()] == "environment"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("CHECKPOINT_EVERY", "often", "steps (500), minutes (10m) or 0"),
        ("CHECKPOINT_EVERY", "-3", "steps (500), minutes (10m) or 0"),
        ("KEEP_CHECKPOINTS", "0", "a whole number from 1 up"),
        ("MAX_SKIP", "5%", "a number from 0 to 1"),
        ("PRESET", "tiny", "one of full, demo"),
        ("OVERWRITE", "yes", "0 or 1"),
        ("BATCH_SIZE", "two", "a whole number from 0 to 1048576"),
        ("BATCH_SIZE", "-1", "a whole number from 0 to 1048576"),
        ("BATCH_SIZE", "2.0", "a whole number from 0 to 1048576"),
        ("GRAD_ACCUM", "16x", "a whole number from 0 to 1048576"),
        ("GRAD_ACCUM", "10000000000", "a whole number from 0 to 1048576"),
        ("MAX_SAMPLES", "all", "a whole number from 0 up"),
        ("NUM_WORKERS", "-2", "a whole number from 0 up"),
        ("EPOCHS", "0", "a whole number from 1 up"),
        ("MAX_STEPS", "1e3", "a whole number from 0 up"),
        ("LEARNING_RATE", "fast", "a number from 0 up"),
        ("LEARNING_RATE", "nan", "a number from 0 up"),
        ("LEARNING_RATE", "inf", "a number from 0 up"),
        ("LEARNING_RATE", "-1e-4", "a number from 0 up"),
        ("WARMUP_RATIO", "5", "a number from 0 to 1"),
        ("WEIGHT_DECAY", "-0.1", "a number from 0 up"),
        ("MAX_GRAD_NORM", "none", "a number from 0 up"),
        ("PRECISION", "int8", "one of auto, fp32, fp16, bf16"),
        ("DEVICE", "gpu", "one of auto, cuda, cpu, mps"),
        ("SEED", "today", "a whole number from 0 "),
        ("SEED", "5000000000", "a whole number from 0 to 4294967295"),
        ("VAL_SAMPLES", "-5", "a whole number from 0 up"),
        ("CACHE_SAM_GB", "-1", "a number from 0 up"),
        ("CACHE_MEMORY_GB", "1 GB", "a number from 0 up"),
        ("GRAD_CHECKPOINT", "yes", "0 or 1"),
    ],
)
def test_a_wrong_variable_is_one_line(name: str, text: str, expected: str) -> None:
    with pytest.raises(SatlisaError) as error:
        TrainConfig.from_env({name: text})
    message = str(error.value)
    assert message.startswith(f"{name}: expected {expected}") and message.endswith(f"found '{text}'")
    assert "\n" not in message


def test_empty_variables_count_as_unset() -> None:
    config = TrainConfig.from_env({"BATCH_SIZE": "", "DATASET": ""})
    assert config == TrainConfig()
    assert config.origins["dataset"] == "default"


def test_unknown_and_lower_case_variables_are_left_alone() -> None:
    assert TrainConfig.from_env({"BATCHSIZE": "two", "epochs": "many", "HOME": "/root"}) == TrainConfig()


def test_environment_beats_preset_beats_default() -> None:
    plain = TrainConfig.from_env({"PRESET": "demo"})
    assert plain.dataset == "demo" and plain.origins["dataset"] == "preset demo"
    assert plain.origins["preset"] == "environment" and plain.origins["num_workers"] == "default"
    chosen = TrainConfig.from_env({"PRESET": "demo", "DATASET": "./chips", "BATCH_SIZE": "2"})
    assert (chosen.dataset, chosen.batch_size) == ("./chips", 2)
    assert chosen.origins["dataset"] == chosen.origins["batch_size"] == "environment"
    kept = ("learning_rate", "epochs", "grad_accum")
    assert [getattr(chosen, name) for name in kept] == [getattr(plain, name) for name in kept]


def test_zero_in_the_environment_asks_for_detection_even_in_the_demo() -> None:
    config = TrainConfig.from_env({"PRESET": "demo", "BATCH_SIZE": "0", "GRAD_ACCUM": "0"}).resolve(2)
    assert (config.batch_size, config.grad_accum) == (2, 8)


def test_every_value_is_printed_with_its_origin() -> None:
    config = TrainConfig.from_env({"PRESET": "demo", "BATCH_SIZE": "0", "SEED": "3"}).resolve(2)
    shown = {line.split()[0]: line for line in config.lines()}
    assert list(shown) == [item.name.upper() for item in variables()]
    assert re.fullmatch(r"SEED +3 +environment", shown["SEED"])
    assert re.fullmatch(r"DATASET +demo +preset demo", shown["DATASET"])
    assert re.fullmatch(r"BATCH_SIZE +2 +hardware", shown["BATCH_SIZE"])


# from the settings to the model's configuration


def test_full_preset_trains_the_repository_configuration() -> None:
    assert TrainConfig.from_env({}).new_model_config() == ModelConfig(instance_places="box")


def test_demo_preset_trains_the_packaged_models() -> None:
    config = TrainConfig.from_env({"PRESET": "demo"}).new_model_config()
    assert (config.vlm_model_id, config.sam_model_id, config.dataset) == ("demo:vlm", "demo:sam", "demo")
    assert (config.lora_r, config.max_instances, config.instance_places) == (16, 8, "box")


def test_models_and_dataset_of_the_environment_are_written_into_the_configuration(tmp_path: Path) -> None:
    ModelConfig(lora_r=4, sam_model_id="from/file", extra={"note": 1}).save(tmp_path / "mine.json")
    given = {"MODEL_CONFIG": str(tmp_path / "mine.json"), "VLM_MODEL": "./qwen", "DATASET": "./chips"}
    config = TrainConfig.from_env(given).new_model_config()
    assert (config.vlm_model_id, config.sam_model_id, config.dataset) == ("./qwen", "from/file", "./chips")
    assert config.lora_r == 4 and config.extra == {"note": 1}
    beside_demo = TrainConfig.from_env({"PRESET": "demo", "SAM_MODEL": "./sam"}).new_model_config()
    assert (beside_demo.vlm_model_id, beside_demo.sam_model_id) == ("demo:vlm", "./sam")


def test_a_configuration_that_is_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SatlisaError, match="No such file"):
        TrainConfig.from_env({"MODEL_CONFIG": str(tmp_path / "none.json")}).new_model_config()


@pytest.mark.parametrize(("value", "message"), [("foo", "expected none or some of"), ("wandb", "pip install wandb")])
def test_trackers_that_are_not_there(value: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SatlisaError, match=f"REPORT_TO: .*{message}"):
        TrainConfig.from_env({"REPORT_TO": value}).trackers()


def test_local_folders_are_written_down_as_they_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "qwen").mkdir()
    monkeypatch.chdir(tmp_path)
    given = {"VLM_MODEL": "qwen", "SAM_MODEL": "someone/sam", "DATASET": "./qwen"}
    config = TrainConfig.from_env(given).new_model_config()
    assert (config.vlm_model_id, config.dataset) == (str(tmp_path / "qwen"), str(tmp_path / "qwen"))
    assert config.sam_model_id == "someone/sam"


def test_lists_of_names() -> None:
    config = TrainConfig.from_env({"SEG_TASKS": "flood_assessment, roads,", "REPORT_TO": "tensorboard"})
    assert config.seg_task_names() == ("flood_assessment", "roads")
    assert config.trackers() == ["tensorboard"]
    assert TrainConfig().seg_task_names() == () and TrainConfig().trackers() == []


# what a user reads


def test_help_names_every_variable_with_default_and_meaning() -> None:
    shown = help_text()
    for item in variables():
        assert re.search(rf"^  {item.name.upper()} ", shown, re.MULTILINE)
        assert item.metadata["meaning"] in shown
    assert re.search(r"^  LEARNING_RATE +0\.0002$", shown, re.MULTILINE)
    assert re.search(r"^  OVERWRITE +0$", shown, re.MULTILINE)


def test_the_page_about_training_has_the_table_of_the_code() -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- settings -->\n(.*?)<!-- /settings -->", page, re.DOTALL)
    assert block is not None, "docs/training.md has no settings block"
    assert block[1].strip() == markdown_table(), (
        'paste into docs/training.md, between the "settings" marks, the output of: '
        'python -c "from satlisa.training.settings import markdown_table; print(markdown_table())"'
    )


def test_only_config_reads_the_environment() -> None:
    scripts = [*(ROOT / "satlisa").rglob("*.py"), *ROOT.glob("*.py")]
    readers = [path.name for path in scripts if re.search(r"\bos\.environ\b|\bgetenv\b", path.read_text())]
    # errors.py for what it must not show; web/serving.py sets it, which is how Gradio is told its folder
    assert sorted(readers) == ["errors.py", "serving.py", "settings.py"]


def test_the_home_folder_is_filled_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert TrainConfig.from_env({"OUTPUT_DIR": "~/run"}).output_dir == str(tmp_path / "run")


def test_a_run_with_its_own_vlm_remembers_from_which_it_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VLM_MODEL names a copy of it, whose place means nothing to others."""
    monkeypatch.setattr("satlisa.pretrained.model_directory.find_model_dir", lambda *_: tmp_path)
    ModelConfig(vlm_model_id="o/vlm").save(tmp_path / "model_config.json")
    for copied in ({}, {"VLM_MODEL": "/data/vlm"}):
        config = TrainConfig.from_env({"INIT_FROM": "x", "MERGE_INIT": "1", **copied}).new_model_config()
        assert (config.vlm_model_id, config.extra) == ("./merged_vlm", {"base_vlm_model_id": "o/vlm"})
    plain = TrainConfig.from_env({"INIT_FROM": "x"}).new_model_config()
    assert (plain.vlm_model_id, plain.extra) == ("o/vlm", {})
