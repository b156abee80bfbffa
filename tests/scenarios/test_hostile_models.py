"""Model directories of strangers that would block, fill the memory or never end: one line each, soon and small.

`test_security.py` has those that would run code, `test_damaged_models.py` the accidents.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.inference_fixtures import command
from tests.helpers.quick import quick
from tests.helpers.saved_models import FILES

pytestmark = [pytest.mark.integration, pytest.mark.skipif(sys.platform == "win32", reason="pipes and devices")]

SECONDS, MEGABYTES = 15, 400
BASES = ("vlm/config.json", "vlm/model.safetensors", "vlm/tokenizer.json", "sam/config.json", "sam/model.safetensors")


@pytest.fixture
def hostile(model_dirs: dict[str, Path], tmp_path: Path) -> Path:
    """A model directory and its base models (`vlm`, `sam` in it), all to change."""
    folder = Path(shutil.copytree(model_dirs["masks"], tmp_path / "hostile"))
    path = folder / "model_config.json"
    settings = json.loads(path.read_text())
    for part in ("vlm", "sam"):
        shutil.copytree(settings[f"{part}_model_id"], folder / part)
        settings[f"{part}_model_id"] = str(folder / part)
    path.write_text(json.dumps(settings))
    return folder


@contextmanager
def soon_and_small() -> Iterator[None]:
    """Neither long nor large, in processor time and in memory."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with quick(SECONDS):
        yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MEGABYTES


@pytest.fixture
def refuse(hostile: Path, ask: Callable[..., str]) -> Callable[[], str]:
    """The line in which the command refuses the directory."""

    def run() -> str:
        with soon_and_small():
            return ask(model_dir=hostile)

    return run


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def folder(path: Path) -> None:
    path.mkdir()


def terabyte(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(2**40)


def gigabytes(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(10**10)


def deep(path: Path) -> None:
    path.write_text("[" * 10**5)


def zeros(path: Path) -> None:
    path.write_bytes(bytes(1000))


@pytest.mark.parametrize("make", [pipe, link_to_pipe, endless, dangling, folder, terabyte, gigabytes, deep, zeros])
@pytest.mark.parametrize("name", [*FILES, *BASES])
def test_what_is_no_such_file(
    name: str, make: Callable[[Path], None], hostile: Path, refuse: Callable[[], str]
) -> None:
    (hostile / name).unlink()
    make(hostile / name)
    if name.endswith(".jinja") and make in (zeros, folder, dangling):
        return  # a text as good as any other; nothing that is read
    assert str(hostile) in refuse()


def nested(depth: int) -> dict[str, Any]:
    loaded: dict[str, Any] = {"0.weight": torch.ones(2)}
    for _ in range(depth):
        loaded = {"inner": loaded}
    return loaded


def doubled(depth: int) -> dict[str, Any]:
    loaded: dict[str, Any] = {"0.weight": torch.ones(2)}
    for _ in range(depth):
        loaded = {"one": loaded, "other": loaded}
    return loaded


def self_containing() -> dict[str, Any]:
    loaded: dict[str, Any] = {"0.weight": torch.ones(2)}
    loaded["inner"] = loaded
    return loaded


CONTENTS: dict[str, Callable[[], Any]] = {
    "nested": lambda: nested(100),
    "nested in a list": lambda: [[nested(3)]],
    "doubled": lambda: doubled(64),
    "self-containing": self_containing,
    "many": lambda: dict.fromkeys(map(str, range(3 * 10**5)), torch.empty(0)),
    "names": lambda: {"a." * 10**5: torch.ones(2)},
    "dots": lambda: {f"{n}{'.' * 500}": torch.ones(2) for n in range(5000)},
    "wide": lambda: {
        "0.weight": torch.empty(10**6, 32),
        "0.bias": torch.empty(10**6),
        "2.weight": torch.empty(16, 10**6),
    },
    "nothing": dict,
    "number": lambda: 7,
    "integer names": lambda: dict(enumerate(torch.ones(4, 2))),
}


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize(
    ("name", "zipped"), [("seg_projector.pt", True), ("seg_projector.pt", False), ("vlm_lora/adapter_model.bin", True)]
)
def test_tensors_in_odd_containers(
    kind: str, name: str, zipped: bool, hostile: Path, refuse: Callable[[], str]
) -> None:
    if name.endswith(".bin"):
        (hostile / "vlm_lora" / "adapter_model.safetensors").unlink()
    torch.save(CONTENTS[kind](), hostile / name, _use_new_zipfile_serialization=zipped)
    assert str(hostile) in refuse()


def quantised(tensor: torch.Tensor) -> torch.Tensor:
    return torch.quantize_per_tensor(tensor.contiguous(), 0.1, 0, torch.qint8)


ODD: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "expanded": lambda tensor: torch.ones(1).expand(tensor.shape) if tensor.numel() > 1 else torch.empty(0),
    "huge expanded": lambda tensor: torch.ones(1).expand(10**6, 10**6),
    "sparse": lambda tensor: tensor.to_sparse(),
    "meta": lambda tensor: tensor.to("meta"),
    "huge meta": lambda tensor: torch.empty(10**6, 10**6, device="meta"),
    "quantised": quantised,
    "integers": lambda tensor: tensor.to(torch.int8),
    "flags": lambda tensor: tensor > 0,
    "complex": lambda tensor: tensor.to(torch.complex64),
    "empty": lambda tensor: tensor[:0],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", ["seg_projector.pt", "sam_mask_decoder.pt", "vlm_lora/adapter_model.bin"])
def test_tensors_of_odd_kinds(kind: str, name: str, hostile: Path, refuse: Callable[[], str]) -> None:
    if name.endswith(".bin"):
        state = load_file(hostile / "vlm_lora" / "adapter_model.safetensors")
        (hostile / "vlm_lora" / "adapter_model.safetensors").unlink()
    else:
        state = torch.load(hostile / name, weights_only=True)
    torch.save({key: ODD[kind](tensor) for key, tensor in state.items()}, hostile / name)
    assert str(hostile) in refuse()


@pytest.mark.parametrize("name", ["seg_token.safetensors", "vlm_lora/adapter_model.safetensors"])
@pytest.mark.parametrize("kind", ["many", "names", "integers", "claimed", "long header"])
def test_odd_safetensors(name: str, kind: str, hostile: Path, refuse: Callable[[], str]) -> None:
    path = hostile / name
    state = load_file(path)
    if kind == "many":
        save_file(state | {str(n): torch.empty(0) for n in range(10**5)}, path)
    elif kind == "names":
        save_file(state | {"a." * 1000: torch.ones(2)}, path)
    elif kind == "integers":
        save_file({key: tensor.to(torch.int8) for key, tensor in state.items()}, path)
    else:
        header = json.dumps({"w": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}).encode()
        size = 10**15 if kind == "long header" else len(header)
        path.write_bytes(size.to_bytes(8, "little") + header)
    assert str(hostile) in refuse()


ANYTHING: list[Any] = [None, True, -1, 10**30, float("nan"), "x", [[]], {"a": {}}]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "keys"),
    [
        ("vlm_lora/adapter_config.json", ("r", "rank_pattern", "target_modules", "trainable_token_indices")),
        ("model_config.json", ("seg_token", "seg_token_id", "vlm_model_id")),
        ("vlm/config.json", ("text_config", "image_token_id", "model_type")),
        ("vlm/generation_config.json", ("eos_token_id",)),
        ("sam/config.json", ("vision_config", "mask_decoder_config")),
        ("sam/preprocessor_config.json", ("size", "image_std", "rescale_factor", "resample")),
        ("tokenizer/tokenizer_config.json", ("eos_token", "extra_special_tokens")),
    ],
)
def test_settings_of_any_type(
    file: str, keys: tuple[str, ...], hostile: Path, image_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They load and answer, or are refused in a line; never a traceback."""
    path = hostile / file
    original = json.loads(path.read_text())
    base = ["--model_dir", hostile, "--image", image_file, "--prompt", "Segment", "--device", "cpu"]
    for key in keys:
        for value in ANYTHING:
            path.write_text(json.dumps(original | {key: value}))
            capsys.readouterr()
            with soon_and_small():
                code = command(*base, "--max_new_tokens", 2)
            lines = capsys.readouterr().err
            assert code in (0, 1) or (code == 2 and lines.count("\n") == 1), (key, value, lines)
