"""Places of this machine are found wherever they stand, and words that look like them are not."""

import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file

from satlisa.errors import SatlisaError
from satlisa.publish.local_paths import find_local_path, refuse_local_paths
from tests.helpers.hub_server import TOKEN
from tests.helpers.published import HOME


@pytest.mark.parametrize(
    "text",
    [
        f"base_model: {HOME}/qwen",
        f"see ({HOME}/a.png)",
        "/mnt" + "/d/models",
        "/tmp" + "/x",
        "/Users" + "/alice/m.pt",
        "/content" + "/drive/MyDrive/model",
        "vlm:" + HOME,
        "~" + "/models/qwen",
        "C:\\Users\\alice\\qwen",
        "D:/models/qwen/",
        "\\\\server\\share\\model",
        "file:///" + "models/qwen",
        "/fast/alice/qwen",
    ],
)
def test_local_paths_are_found(text: str) -> None:
    assert find_local_path(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://huggingface.co/home/alice",
        "Qwen/Qwen3.5-0.8B",
        "docs/tmp/x",
        "yes/no",
        "</tool_call>",
        "/",
        "/home/",
        "3 / 4",
        ".*language_model\\..*\\.(q_proj|k_proj)",
        "{{ 'A:\\n' }}",
        "image A: yes",
    ],
)
def test_other_words_are_not(text: str) -> None:
    assert find_local_path(text) is None


def refused(files: dict[str, Path | bytes], folder: Path) -> str:
    with pytest.raises(SatlisaError) as caught:
        refuse_local_paths(files, folder)
    return str(caught.value)


def test_the_message_names_file_place_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "model_config.json").write_text(json.dumps({"a": {"teacher": f"{HOME}/big"}}))
    message = refused({"model_config.json": tmp_path / "model_config.json"}, tmp_path)
    assert re.match(rf"model_config.json: a: teacher: names '{HOME}/big'.* nothing was published\. Remove it", message)


def test_every_kind_of_file_is_read(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors", {"source": f"{HOME}/m"})
    torch.save({f"{HOME}/m": torch.zeros(1)}, tmp_path / "a.pt")
    (tmp_path / "a.jinja").write_text(f"{{# {HOME}/m #}}")
    info = PngImagePlugin.PngInfo()
    info.add_text("Source", f"{HOME}/m")
    Image.new("L", (2, 2)).save(tmp_path / "a.png", pnginfo=info)
    for path in sorted(tmp_path.iterdir()):
        assert refused({path.name: path}, tmp_path).startswith(path.name)
    assert refused({"README.md": f"[x]({HOME}/m)".encode()}, tmp_path).startswith("README.md")


def test_the_place_of_the_model_is_found_wherever_it_lies(tmp_path: Path) -> None:
    assert str(tmp_path) in refused({"a.txt": f"from{tmp_path}".encode()}, tmp_path)


def test_words_of_a_vocabulary_are_no_paths(tmp_path: Path) -> None:
    tokenizer = {"model": {"vocab": {f"{HOME}/x": 1}, "merges": []}, "added_tokens": []}
    files: dict[str, Path | bytes] = {
        "tokenizer/tokenizer.json": json.dumps(tokenizer).encode(),
        "tokenizer/merges.txt": f"{HOME}/x a".encode(),
    }
    refuse_local_paths(files, tmp_path)
    files["tokenizer/tokenizer.json"] = json.dumps({**tokenizer, "source": f"{HOME}/x"}).encode()
    assert refused(files, tmp_path).startswith("tokenizer/tokenizer.json: source")


def test_weights_without_metadata_pass(tmp_path: Path) -> None:
    save_file({"x": torch.arange(1000.0)}, tmp_path / "a.safetensors")
    torch.save({"x": torch.arange(1000.0)}, tmp_path / "a.pt")
    refuse_local_paths({name: tmp_path / name for name in ("a.safetensors", "a.pt")}, tmp_path)


def test_access_tokens_are_refused_and_not_shown(tmp_path: Path) -> None:
    message = refused({"chat_template.jinja": TOKEN.encode()}, tmp_path)
    assert "access token" in message and TOKEN not in message
