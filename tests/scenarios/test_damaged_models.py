"""Model directories whose files are cut off, of another shape, missing, or of another base model: one line each."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from satlisa.pretrained.model_directory import load_model
from satlisa.runtime import atomic_files
from satlisa.training import train as run_module
from tests.helpers import tiny
from tests.helpers.inference_fixtures import command
from tests.helpers.resume_fixtures import short
from tests.helpers.saved_models import FILES

pytestmark = pytest.mark.integration


@pytest.fixture
def broken(model_dirs: dict[str, Path], tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(model_dirs["masks"], tmp_path / "broken"))


def test_every_file_is_covered(broken: Path) -> None:
    found = {str(path.relative_to(broken)) for path in broken.rglob("*") if path.is_file()}
    assert found - {"vlm_lora/README.md"} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_truncated_files(name: str, broken: Path, ask: Callable[..., str]) -> None:
    path = broken / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    line = ask(model_dir=broken)
    assert str(path) in line or f"{path.parent}: " in line  # transformers does not say which of a tokenizer's files


def reshape(path: Path) -> None:
    """A file of the same kind that holds something else."""
    if path.suffix == ".json":
        path.write_text("[]")
    elif path.suffix == ".jinja":
        path.write_text("{{ messages[0].content }}")
    elif path.suffix == ".pt":
        torch.save({name: t[..., :-1].clone() for name, t in torch.load(path, weights_only=True).items()}, path)
    else:
        save_file({name: t[..., :-1].contiguous() for name, t in load_file(path).items()}, path, {"format": "pt"})


@pytest.mark.parametrize("name", FILES)
def test_files_of_another_shape(name: str, broken: Path, ask: Callable[..., str]) -> None:
    reshape(broken / name)
    assert str((broken / name).parent) in ask(model_dir=broken)


# What has a stand-in (docs/architecture.md#model-directory): the base model's tokenizer or template, a <SEG> row
# from elsewhere.
@pytest.mark.parametrize(
    "name", [*sorted(set(FILES) - {"seg_token.safetensors", "tokenizer/chat_template.jinja"}), "vlm_lora"]
)
def test_missing_files(name: str, broken: Path, ask: Callable[..., str]) -> None:
    shutil.rmtree(broken / name) if name == "vlm_lora" else (broken / name).unlink()
    assert str((broken / name).parent) in ask(model_dir=broken)


@pytest.mark.parametrize("name", ["seg_token.safetensors", "tokenizer/chat_template.jinja", "tokenizer"])
def test_missing_files_with_a_stand_in(
    name: str, broken: Path, image_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(broken / name) if name == "tokenizer" else (broken / name).unlink()
    base = ["--model_dir", broken, "--image", image_file, "--device", "cpu", "--max_new_tokens", 2]
    assert command(*base, "--prompt", "What is it?") == 0
    assert ("neither seg_token.safetensors nor a <SEG> row in the adapter" in caplog.text) == ("seg_token" in name)


def test_a_model_of_another_base_model(broken: Path, ask: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another hidden size, under the same token ids."""
    config = tiny.vlm_config()
    config.text_config.hidden_size = config.vision_config.out_hidden_size = 48
    monkeypatch.setattr(tiny, "vlm_config", lambda: config)
    other = tiny.write_vlm(broken.parent / "other")
    settings = json.loads((broken / "model_config.json").read_text())
    (broken / "model_config.json").write_text(json.dumps(settings | {"vlm_model_id": str(other)}))
    line = ask(model_dir=broken)
    assert "seg_row (48,), found {'seg_row': (32,)}; was it trained on another base model?" in line
    (broken / "seg_token.safetensors").unlink()
    assert "expected two matrices that map 48" in ask(model_dir=broken)


def test_a_run_that_stops_inside_a_save_repairs_its_model(
    tiny_config: ModelConfig,
    resume_data: Path,
    dropping: str,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the adapter and the decoder of the second epoch. Files of the user stay, whatever they are called."""
    for name in ("vlm_lora.old", "tokenizer.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("mine")
    settings = short(tiny_config, resume_data, tmp_path, MODEL_CONFIG=dropping, OVERWRITE="1")
    swap, swapped = atomic_files._swap, []

    def stop_at_the_decoder(temporary: Path, path: Path) -> None:
        swapped.append(path.name)
        if swapped.count("sam_mask_decoder.pt") == 2:
            raise KeyboardInterrupt
        swap(temporary, path)

    with monkeypatch.context() as patch:
        patch.setattr(atomic_files, "_swap", stop_at_the_decoder)
        with pytest.raises(KeyboardInterrupt):
            run_module.train(settings)
    with pytest.raises(SatlisaError, match=r"its parts do not belong together\. Run the same train\.py command again"):
        load_model(tmp_path, "cpu")
    run_module.train(settings)
    for one, other in zip(load_model(tmp_path, "cpu").parameters(), load_model(whole, "cpu").parameters(), strict=True):
        assert torch.equal(one, other)
    assert (tmp_path / "vlm_lora.old/mine.txt").is_file() and (tmp_path / "tokenizer.partial/mine.txt").is_file()
