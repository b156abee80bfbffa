"""Merged models: they answer as the model directory does, and are plain folders for other programs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, Qwen3_5ForConditionalGeneration

from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from satlisa.model.satlisa import SatLisa
from satlisa.pretrained.merging import merge_model
from satlisa.pretrained.model_directory import fingerprint_model, load_model, save_model
from satlisa.runtime.atomic_files import PARTIAL
from tests.helpers.foreign_adapters import IDS, logits_of, train_with_peft
from tests.helpers.saved_models import outputs

SEG = 263
BOTH = ["embed_tokens", "lm_head"]


def plain_logits(folder: Path) -> torch.Tensor:
    """What `transformers` alone computes with a folder."""
    vlm, info = Qwen3_5ForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    with torch.no_grad():
        logits: torch.Tensor = vlm(input_ids=IDS).logits[0]
    return logits


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_merged_model_answers_as_before(saved: tuple[SatLisa, Path], tmp_path: Path) -> None:
    """Losses, masks, scores and tokens, from another place than the model that it was made from."""
    model, folder = saved
    merge_model(folder, tmp_path / "m" / "out")
    shutil.rmtree(folder)
    moved = tmp_path / "elsewhere"
    (tmp_path / "m" / "out").rename(moved)
    merged = load_model(moved, "cpu")
    for one, other in zip(outputs(model), outputs(merged), strict=True):
        assert torch.allclose(one.float(), other.float(), atol=1e-4)
    assert merged.config.vlm_model_id == "." and not any("lora" in name for name, _ in merged.named_parameters())
    assert list((tmp_path / "m").iterdir()) == []


def test_other_programs_load_it(saved: tuple[SatLisa, Path], tmp_path: Path) -> None:
    """The same logits without this package; tokenizer and template know `<SEG>`; an index leaves our parts out."""
    out = tmp_path / "out"
    merge_model(saved[1], out)
    assert torch.allclose(plain_logits(out), logits_of(saved[0]), atol=1e-4)
    processor = AutoProcessor.from_pretrained(out)
    assert processor.tokenizer.convert_tokens_to_ids("<SEG>") == SEG
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}]
    assert "<|image_pad|>" in processor.apply_chat_template(turns, tokenize=False)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    shards = set(index["weight_map"].values())
    assert shards == {"model-00001-of-00001.safetensors"} and "seg_projector.safetensors" not in shards
    assert index["metadata"]["total_size"] == sum(t.numel() * 4 for t in load_file(out / shards.pop()).values())
    names = {path.name for path in out.iterdir()}
    wanted = {"config.json", "generation_config.json", "processor_config.json", "preprocessor_config.json"}
    assert wanted <= names and not any(name.endswith((".pt", ".bin")) for name in names)
    row = load_model(out, "cpu").qwen.get_input_embeddings().weight[SEG]
    assert torch.equal(row, saved[0].seg_row)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("layers", "tied"),
    [
        ({}, True),
        ({"use_rslora": True, "lora_alpha": 3}, True),
        ({"use_dora": True}, True),
        ({"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.3.self_attn.q_proj": 5}}, True),
        ({"modules_to_save": ["embed_tokens"]}, False),
        ({"modules_to_save": ["lm_head"]}, False),
        ({"modules_to_save": BOTH}, False),
        ({"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}, True),
        ({"trainable_token_indices": [5, SEG, 300]}, True),
        ({"trainable_token_indices": {"lm_head": [SEG, 7]}}, False),
        ({"trainable_token_indices": {"embed_tokens": [SEG, 7], "lm_head": [9, SEG]}}, False),
        ({"target_modules": ["q_proj", "embed_tokens"], "use_rslora": True}, False),
    ],
    ids=str,
)
def test_adapters_of_peft_are_merged_as_peft_uses_them(
    layers: dict[str, Any], tied: bool, saved: tuple[SatLisa, Path], tiny_config: ModelConfig, tmp_path: Path
) -> None:
    """Input and output row of `<SEG>` (token 263 is in the sequence and in the logits); both ways to load it."""
    expected = train_with_peft(tiny_config, saved[1], layers)
    merge_model(saved[1], tmp_path / "out")
    assert torch.allclose(plain_logits(tmp_path / "out"), expected, atol=1e-4)
    model = load_model(tmp_path / "out", "cpu")
    assert torch.allclose(logits_of(model), expected, atol=1e-4)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["tie_word_embeddings"] is config["text_config"]["tie_word_embeddings"] is tied
    assert (model.qwen.lm_head.weight is model.qwen.get_input_embeddings().weight) is tied


def test_our_own_row_goes_before_the_adapters(
    saved: tuple[SatLisa, Path], tiny_config: ModelConfig, tmp_path: Path
) -> None:
    """`seg_token.safetensors` is the row of both matrices, also where an adapter separates them."""
    own = (saved[1] / "seg_token.safetensors").read_bytes()
    train_with_peft(tiny_config, saved[1], {"modules_to_save": ["lm_head"]})
    (saved[1] / "seg_token.safetensors").write_bytes(own)
    merge_model(saved[1], tmp_path / "out")
    model = load_model(tmp_path / "out", "cpu")
    for matrix in (model.qwen.lm_head.weight, model.qwen.get_input_embeddings().weight):
        assert torch.equal(matrix[SEG], saved[0].seg_row)
    assert torch.allclose(logits_of(model), logits_of(load_model(saved[1], "cpu")), atol=1e-4)


def store_base_as(dtype: str, model_dir: Path, config: ModelConfig, base: Path) -> None:
    """Give a model directory a base model with weights of another dtype."""
    shutil.copytree(config.vlm_model_id, base)
    weights = {name: tensor.to(getattr(torch, dtype)) for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    edit(base / "config.json", dtype=dtype)
    edit(model_dir / "model_config.json", vlm_model_id=str(base))


@pytest.mark.parametrize("stored", ["bfloat16", "float16"])
def test_an_exact_merge_answers_as_before_on_narrow_weights(
    stored: str, saved: tuple[SatLisa, Path], tiny_config: ModelConfig, tmp_path: Path
) -> None:
    """What LoRA changes is float32, and nothing else."""
    store_base_as(stored, saved[1], tiny_config, tmp_path / "base")
    merge = merge_model(saved[1], tmp_path / "out", is_exact=True)
    found = load_file(tmp_path / "out" / "model-00001-of-00001.safetensors")
    wide = {name for name, tensor in found.items() if tensor.dtype == torch.float32}
    assert wide == set(merge.layers) and {t.dtype for t in found.values()} == {torch.float32, getattr(torch, stored)}
    for one, other in zip(
        outputs(load_model(saved[1], "cpu")), outputs(load_model(tmp_path / "out", "cpu")), strict=True
    ):
        assert torch.allclose(one.float(), other.float(), atol=1e-4)


@pytest.mark.parametrize(("stored", "asked"), [("bfloat16", None), ("float16", None), ("bfloat16", "float32")])
def test_the_dtype_is_kept_and_sums_are_rounded_once(
    stored: str, asked: str | None, saved: tuple[SatLisa, Path], tiny_config: ModelConfig, tmp_path: Path
) -> None:
    store_base_as(stored, saved[1], tiny_config, tmp_path / "base")
    model = load_model(saved[1], "cpu")
    merge = merge_model(saved[1], tmp_path / "out", getattr(torch, asked) if asked else None)
    found = load_file(tmp_path / "out" / "model-00001-of-00001.safetensors")
    dtype = getattr(torch, asked or stored)
    assert {tensor.dtype for tensor in found.values()} == {dtype}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == (asked or stored)
    assert merge.lost < 1e-6 if asked else 1e-4 < merge.lost < 0.5
    name = "model.language_model.layers.3.self_attn.q_proj"
    layer = model.qwen.get_submodule(name)
    exact = layer.base_layer.weight + 2 * layer.lora_B.default.weight @ layer.lora_A.default.weight
    assert torch.equal(found[f"{name}.weight"], exact.to(dtype))


@pytest.mark.parametrize(
    ("settings", "tensors", "said"),
    [
        ({"lora_bias": True}, {}, "lora_bias True cannot be merged"),
        ({"bias": "all"}, {}, "bias 'all' cannot be merged"),
        ({}, {"base_model.model.model.visual.merger.extra": (2,)}, "visual.merger.extra cannot be merged"),
        ({"r": 3}, {}, "r or rank_pattern 3, tensors of rank 16"),
    ],
    ids=str,
)
def test_what_cannot_be_merged_is_refused_by_name(
    settings: dict[str, Any],
    tensors: dict[str, tuple[int, ...]],
    said: str,
    saved: tuple[SatLisa, Path],
    tmp_path: Path,
) -> None:
    edit(saved[1] / "vlm_lora" / "adapter_config.json", **settings)
    file = saved[1] / "vlm_lora" / "adapter_model.safetensors"
    save_file(load_file(file) | {name: torch.ones(shape) for name, shape in tensors.items()}, file, {"format": "pt"})
    with pytest.raises(SatlisaError, match=said):
        merge_model(saved[1], tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / ("out" + PARTIAL)).exists()


def test_a_damaged_base_model_is_named(saved: tuple[SatLisa, Path], tiny_config: ModelConfig, tmp_path: Path) -> None:
    """Its processor, and a tensor that is missing: the fault is not taken for one of the output."""
    base = tmp_path / "base"
    shutil.copytree(tiny_config.vlm_model_id, base)
    edit(saved[1] / "model_config.json", vlm_model_id=str(base))
    tensors = load_file(base / "model.safetensors")
    tensors.pop("model.language_model.norm.weight")
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(SatlisaError, match=r"expected the tensor model.language_model.norm.weight \(32,\), found none"):
        merge_model(saved[1], tmp_path / "out")
    (base / "processor_config.json").write_text("{damaged")
    with pytest.raises(SatlisaError, match="vlm_model_id: cannot load"):
        merge_model(saved[1], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_left_alone(saved: tuple[SatLisa, Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    merge_model(saved[1], tmp_path / "out")
    before = fingerprint_model(tmp_path / "out")
    with pytest.raises(SatlisaError, match=r"--output: .* is not empty; name another folder"):
        merge_model(saved[1], tmp_path / "out")
    assert fingerprint_model(tmp_path / "out") == before
    with pytest.raises(SatlisaError, match=r"expected a folder at .*, found a file"):
        merge_model(saved[1], saved[1] / "model_config.json")
    with pytest.raises(SatlisaError, match="is merged already"):
        merge_model(tmp_path / "out", tmp_path / "again")


def test_only_a_configuration_that_says_so_makes_a_merged_model(saved: tuple[SatLisa, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    merge_model(saved[1], out)
    assert fingerprint_model(out) != fingerprint_model(saved[1])
    with pytest.raises(SatlisaError, match="a merged model has no LoRA layers to save"):
        save_model(load_model(out, "cpu"), tmp_path / "x")
    shutil.copytree(saved[1] / "vlm_lora", out / "vlm_lora")
    with pytest.raises(SatlisaError, match=r"says that LoRA is merged .* yet there is vlm_lora"):
        load_model(out, "cpu")
    shutil.rmtree(out / "vlm_lora")
    (out / "sam_mask_decoder.safetensors").rename(out / "other")
    with pytest.raises(SatlisaError, match=r"sam_mask_decoder.safetensors missing"):
        load_model(out, "cpu")
    (out / "other").rename(out / "sam_mask_decoder.safetensors")
    edit(out / "model_config.json", vlm_model_id="o/n")
    with pytest.raises(SatlisaError, match=r"not a model directory, vlm_lora, seg_projector.pt, sam_mask_decoder.pt"):
        load_model(out, "cpu")


def test_a_hub_id_is_merged_and_a_merged_one_is_loaded(
    saved: tuple[SatLisa, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A downloaded directory may hold its VLM, and may not name folders of this machine."""
    config = saved[0].config
    places = {"o/trained": str(saved[1]), "o/merged": str(tmp_path / "out")}
    bases = {"o/vlm": config.vlm_model_id, "o/sam": config.sam_model_id}
    monkeypatch.setattr("satlisa.pretrained.model_directory.snapshot_download", places.get)
    monkeypatch.setattr("satlisa.pretrained.base_models.model_source", lambda name: bases.get(name, name))
    with pytest.raises(SatlisaError, match="a downloaded model may only name models of the hub"):
        merge_model("o/trained", tmp_path / "out")
    edit(saved[1] / "model_config.json", vlm_model_id="o/vlm", sam_model_id="o/sam")
    merge_model("o/trained", tmp_path / "out")
    merged = load_model("o/merged", "cpu")
    assert torch.allclose(logits_of(merged), logits_of(saved[0]), atol=1e-4)
    assert merged.config.extra["base_vlm_model_id"] == "o/vlm"  # a model card names it
    edit(tmp_path / "out" / "model_config.json", sam_model_id=config.sam_model_id)
    with pytest.raises(SatlisaError, match="a downloaded model may only name models of the hub"):
        load_model("o/merged", "cpu")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("./..", "which leaves it"),
        ("./a/../../b", "which leaves it"),
        ("./link", "which leaves it"),
        ("./nothing", "expected a VLM in .*nothing, found no config.json"),
        ("..", "expected a hub id"),
        (".vlm", "expected a hub id"),
    ],
)
def test_a_vlm_lies_in_the_directory(
    name: str, said: str, saved: tuple[SatLisa, Path], tiny_config: ModelConfig
) -> None:
    (saved[1] / "link").symlink_to(tiny_config.vlm_model_id)
    edit(saved[1] / "model_config.json", vlm_model_id=name)
    with pytest.raises(SatlisaError, match=said):
        load_model(saved[1], "cpu")


def test_a_vlm_in_the_directory_is_used(
    saved: tuple[SatLisa, Path], tiny_config: ModelConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(tiny_config.vlm_model_id, saved[1] / "merged_vlm")
    before = fingerprint_model(saved[1])
    edit(saved[1] / "model_config.json", vlm_model_id="./merged_vlm")
    monkeypatch.chdir(tmp_path)
    model = load_model("run", "cpu")
    assert model.config.vlm_model_id == "./merged_vlm"  # as it is saved again
    assert torch.equal(logits_of(model), logits_of(saved[0]))
    named = fingerprint_model(saved[1])
    (saved[1] / "merged_vlm" / "config.json").write_text("{}")
    assert len({before, named, fingerprint_model(saved[1])}) == 3
