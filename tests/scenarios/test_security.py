"""What other people's files cannot do: run code, lead outside of their folder, make the program call somebody."""

import builtins
import json
import os
import pickle
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from satlisa.cli import inference as cli
from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from satlisa.inference import api as answers
from satlisa.pretrained.model_directory import load_model, save_model
from satlisa.processing.embedding_cache import EmbeddingCache
from tests.helpers.model_fixtures import make_model, picture

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def trained(tiny_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    save_model(make_model(tiny_config), folder)
    return folder


@pytest.fixture
def run_dir(trained: Path, tmp_path: Path) -> Path:
    """A model directory to tamper with."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def refuse(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Run the command on the model directory, which it must refuse in one line."""
    picture(50, 40).save(tmp_path / "sat.png")

    def run() -> str:
        capsys.readouterr()
        base = ["--model_dir", str(run_dir), "--image", str(tmp_path / "sat.png"), "--device", "cpu"]
        assert cli.main([*base, "--prompt", "x", "--max_new_tokens", "2"]) == 2
        line = capsys.readouterr().err
        assert line.startswith("inference.py: ") and line.count("\n") == 1, line
        return line

    return run


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def copy_base(run_dir: Path, part: str) -> Path:
    """A copy of a base model ("vlm", "sam") that the model directory then names."""
    key = f"{part}_model_id"
    copy = run_dir.parent / f"base_{part}"
    shutil.copytree(json.loads((run_dir / "model_config.json").read_text())[key], copy)
    edit(run_dir / "model_config.json", **{key: str(copy)})
    return copy


class Planted:
    """Makes a folder when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = str(place)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.place,)


def write_pickle(path: Path, place: Path) -> None:
    path.write_bytes(pickle.dumps({"0.weight": Planted(place)}))


def write_zipped_pickle(path: Path, place: Path) -> None:
    torch.save({"0.weight": Planted(place)}, path)


WRITERS = [write_pickle, write_zipped_pickle]


@pytest.mark.parametrize("write", WRITERS)
def test_the_plant_is_alive(write: Callable[[Path, Path], None], tmp_path: Path) -> None:
    """Else the tests below would show nothing."""
    write(tmp_path / "x.pt", tmp_path / "planted")
    unpickle = {write_pickle: lambda path: pickle.loads(path.read_bytes())}
    unpickle[write_zipped_pickle] = lambda path: torch.load(path, weights_only=False)
    unpickle[write](tmp_path / "x.pt")
    assert (tmp_path / "planted").is_dir()


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("name", "instead_of"),
    [
        ("seg_projector.pt", None),
        ("sam_mask_decoder.pt", None),
        ("seg_token.safetensors", None),
        ("vlm_lora/adapter_model.bin", "vlm_lora/adapter_model.safetensors"),
        ("vlm_lora/adapter_model.safetensors", None),
        ("tokenizer/tokenizer.json", None),
        ("tokenizer/tokenizer_config.json", None),
        ("tokenizer/vocab.pkl", "tokenizer/tokenizer.json"),
        ("model_config.json", None),
    ],
)
def test_pickles_in_a_model_directory(
    write: Callable[[Path, Path], None], name: str, instead_of: str | None, run_dir: Path, refuse: Callable[[], str]
) -> None:
    write(run_dir / name, run_dir / "planted")
    if instead_of:
        (run_dir / instead_of).unlink()
    assert str(run_dir) in refuse()
    assert not (run_dir / "planted").exists()


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("part", ["vlm", "sam"])
def test_pickles_in_a_base_model(
    write: Callable[[Path, Path], None], part: str, run_dir: Path, refuse: Callable[[], str]
) -> None:
    base = copy_base(run_dir, part)
    (base / "model.safetensors").unlink()
    write(base / "pytorch_model.bin", run_dir / "planted")
    line = refuse()
    assert f"{part}_model_id: '{base}'" in line and "could run code; not loaded" in line
    assert "weights_only" not in line  # torch's advice is to switch the protection off
    assert not (run_dir / "planted").exists()


@pytest.mark.parametrize("write", WRITERS)
def test_pickles_among_cached_embeddings(
    write: Callable[[Path, Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = EmbeddingCache(tmp_path / "cache", torch.nn.Linear(2, 2), "", 10**9)
    embedding = cache.store(["key"], torch.ones(1, 2, 2, 2))[0]
    (entry,) = (tmp_path / "cache").rglob("*.safetensors")
    write(entry, tmp_path / "planted")
    assert cache.load("key") is None and "cannot be read and is replaced" in caplog.text
    assert not (tmp_path / "planted").exists()
    cache.store(["key"], embedding[None])
    assert cache.load("key") is not None


@pytest.fixture
def planted_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], Callable[[], bool]]]:
    """Puts a module that makes a folder when imported into a folder; the answer says whether it has been."""
    questions: list[Any] = []
    monkeypatch.setattr(builtins, "input", lambda *question: questions.append(question) or "n")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))

    def plant(folder: Path) -> Callable[[], bool]:
        place = tmp_path / "ran"
        (folder / "planted.py").write_text(
            f"import os; os.mkdir({str(place)!r})\n"
            "from transformers import PreTrainedTokenizerFast, ProcessorMixin\n"
            "class Tok(PreTrainedTokenizerFast): pass\nclass Proc(ProcessorMixin): pass\n"
        )
        return place.exists

    yield plant
    assert not questions, "asked whether to run the code"


AUTO_MAP = {"AutoTokenizer": ["planted.Tok", "planted.Tok"], "AutoProcessor": "planted.Proc", "AutoConfig": "planted.C"}


def test_code_of_an_unknown_tokenizer(
    run_dir: Path, refuse: Callable[[], str], planted_module: Callable[[Path], Callable[[], bool]]
) -> None:
    ran = planted_module(run_dir / "tokenizer")
    edit(run_dir / "tokenizer" / "tokenizer_config.json", auto_map=AUTO_MAP, tokenizer_class="PlantedTokenizer")
    line = refuse()
    assert f"{run_dir / 'tokenizer'}: not a readable tokenizer (it needs to run its own code, which is not" in line
    assert "trust_remote_code" not in line and not ran()


def test_code_of_a_known_tokenizer(run_dir: Path, planted_module: Callable[[Path], Callable[[], bool]]) -> None:
    ran = planted_module(run_dir / "tokenizer")
    edit(run_dir / "tokenizer" / "tokenizer_config.json", auto_map=AUTO_MAP)
    load_model(run_dir, "cpu")
    assert not ran()


def test_code_of_a_processor(
    run_dir: Path, refuse: Callable[[], str], planted_module: Callable[[Path], Callable[[], bool]]
) -> None:
    base = copy_base(run_dir, "vlm")
    ran = planted_module(base)
    for name in ("config.json", "tokenizer_config.json", "processor_config.json"):
        edit(base / name, auto_map=AUTO_MAP)
    load_model(run_dir, "cpu")
    for name in ("tokenizer_config.json", "processor_config.json"):
        edit(base / name, processor_class="PlantedProcessor")
    assert "it needs to run its own code, which is not supported" in refuse()
    assert not ran()


@pytest.mark.parametrize("part", ["vlm", "sam"])
def test_kernels_that_a_base_model_names(part: str, run_dir: Path, no_calls: list[Any]) -> None:
    """transformers takes "owner/name" there for code of the hub, and fetches it."""
    edit(copy_base(run_dir, part) / "config.json", attn_implementation="owner/kernel")
    model = load_model(run_dir, "cpu")
    config = {"vlm": model.qwen.config, "sam": model.segmenter.sam.config}[part]
    assert config._attn_implementation in ("sdpa", "eager") and not no_calls


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"megatron_config": {"a": 1}, "megatron_core": "planted"}, "megatron_config={'a': 1} is not supported"),
        ({"peft_type": "PROMPT_TUNING", "tokenizer_name_or_path": "o/n"}, "found PROMPT_TUNING"),
        ({"corda_config": {"cache_file": "x.pt"}}, "corda_config="),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa' is not supported"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens=[1] is not supported"),
        ({"r": "many"}, "does not fit the base model"),
    ],
)
def test_adapters_that_ask_for_more(
    changes: dict[str, Any],
    said: str,
    run_dir: Path,
    refuse: Callable[[], str],
    planted_module: Callable[[Path], Callable[[], bool]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran = planted_module(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    edit(run_dir / "vlm_lora" / "adapter_config.json", **changes)
    assert said in refuse()
    assert not ran() and "planted" not in sys.modules


def test_where_an_adapter_comes_from_makes_no_difference(run_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = {"base_model_name_or_path": "/gone", "auto_mapping": {"parent_library": "os"}, "made_up": 1}
    edit(run_dir / "vlm_lora" / "adapter_config.json", **settings)
    load_model(run_dir, "cpu")
    assert "the installed PEFT does not know made_up" in caplog.text


LEADING_OUT = (
    *(
        "../base",
        "owner/../../base",
        "./base",
        "~/base",
        "file:base",
        "file:///base",
        "a/b/c",
        "https://h.co/o/n",
        "o/..",
    ),
    *("demo:../../demo", "demo:", "o\\..\\n", "", "-o/n", "ssh://git@h.co/o/n", "hf://o/n"),
)


@pytest.mark.parametrize("name", LEADING_OUT)
@pytest.mark.parametrize("key", ["vlm_model_id", "sam_model_id"])
def test_names_that_lead_out(key: str, name: str, run_dir: Path, refuse: Callable[[], str]) -> None:
    edit(run_dir / "model_config.json", **{key: name})
    assert "expected" in refuse()


def test_a_name_with_dots_is_not_looked_up_here(
    run_dir: Path, refuse: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = copy_base(run_dir, "vlm")
    (base / "below").mkdir()
    monkeypatch.chdir(base / "below")
    edit(run_dir / "model_config.json", vlm_model_id="../../base_vlm")
    assert Path("../../base_vlm/config.json").is_file()
    assert "vlm_model_id: expected a hub id (owner/name) or an absolute path, found '../../base_vlm'" in refuse()


def test_a_base_folder_that_is_gone(run_dir: Path, refuse: Callable[[], str]) -> None:
    edit(run_dir / "model_config.json", sam_model_id="/gone/sam")
    assert "sam_model_id: there is no folder /gone/sam; put the base model there" in refuse()


def test_a_downloaded_model_names_no_folders(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, tiny_config: ModelConfig
) -> None:
    """The same directory is fine as a folder: its owner wrote the paths."""
    load_model(run_dir, "cpu")
    monkeypatch.setattr("satlisa.pretrained.model_directory.snapshot_download", lambda _: str(run_dir))
    with pytest.raises(SatlisaError, match=r"vlm_model_id: '/.*' is a path, and a downloaded model may only name"):
        load_model("someone/satellite-model", "cpu")
    for name in ("../base", "a/b/c"):
        edit(run_dir / "model_config.json", vlm_model_id=name)
        with pytest.raises(SatlisaError, match=r"vlm_model_id: expected a hub id \(owner/name\), found"):
            load_model("someone/satellite-model", "cpu")


@pytest.fixture
def no_calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """No socket is connected; the attempts."""
    attempts: list[Any] = []

    def call(*where: Any, **_: Any) -> None:
        attempts.append(where)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", call)
    monkeypatch.setattr(socket.socket, "connect_ex", call)
    monkeypatch.setattr(socket, "getaddrinfo", call)
    return attempts


@pytest.mark.parametrize("offline", [False, True])
def test_local_models_need_no_network(
    offline: bool, run_dir: Path, no_calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    model = load_model(run_dir, "cpu")
    answers.generate_text(model, picture(50, 40), "What is it?", max_new_tokens=2)
    load_model(Path(os.path.relpath(run_dir)), "cpu")
    assert not no_calls


def test_a_hub_id_that_is_not_cached_offline(
    no_calls: list[Any], run_dir: Path, monkeypatch: pytest.MonkeyPatch, refuse: Callable[[], str]
) -> None:
    """As the model, and as its base model."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        SatlisaError, match=r"o/n: neither a local folder nor available from the hub \(.*HF_HUB_OFFLINE"
    ):
        load_model("o/n", "cpu")
    edit(run_dir / "model_config.json", vlm_model_id="o/n")
    line = refuse()
    assert "vlm_model_id: cannot load 'o/n': " in line and "HF_HUB_OFFLINE" in line
    assert not no_calls


def test_the_guard_sees_calls(no_calls: list[Any]) -> None:
    with pytest.raises(SatlisaError, match="nor available from the hub"):
        load_model("o/n", "cpu")
    assert no_calls
