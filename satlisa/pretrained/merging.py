"""Merge LoRA layers and `<SEG>` row of a model directory into its VLM, from disk to disk, a tensor at a time.

The result is a folder that `transformers` loads, and with it programs that know nothing of this package. Sums are
computed in float32 and stored in the dtype of the base model. What an adapter does to the vocabulary is what loading
does (`adapter_vocabulary`): where input and output differ, the tied matrix becomes two.
"""

import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Qwen3_5ForConditionalGeneration, SamModel

from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from satlisa.model.assemble import add_seg_token
from satlisa.model.satlisa import Projector
from satlisa.pretrained.adapter_vocabulary import Rows, Vocabulary, part_of_vocabulary, read_vocabulary
from satlisa.pretrained.base_checks import check_tokenizer
from satlisa.pretrained.base_models import empty_model, load_processor, resolve_ids, use_tokenizer
from satlisa.pretrained.model_directory import (
    ADAPTER_FOLDER,
    CONFIG_FILE,
    MERGED_DECODER_FILE,
    MERGED_PROJECTOR_FILE,
    SEG_ROW_FILE,
    check_seg_token,
    find_model_dir,
    load_tokenizer,
    part_files,
)
from satlisa.pretrained.peft_adapter import read_adapter, wrap_layers
from satlisa.pretrained.state_matching import State
from satlisa.pretrained.streamed_tensors import StoredTensor, stored_tensors, weight_files, write_tensors
from satlisa.pretrained.tensor_files import MOST_TOKENIZER, check_finite, read_json
from satlisa.pretrained.trained_parts import match_part, projector_hidden_size, read_seg_row, read_states
from satlisa.runtime.atomic_files import atomic_replace
from satlisa.runtime.locations import check_writable, writing_to

logger = logging.getLogger(__name__)

_COPIED = (  # of a base model, as they are; the processor's own are written new
    *("generation_config.json", "preprocessor_config.json", "video_preprocessor_config.json", "vocab.json"),
    "merges.txt",
)
_BLOCK = 2**22  # numbers of a matrix that are merged at a time
_LOSS_SHOWN = 0.01  # share of LoRA's change that rounding may take before it is said


@dataclass(frozen=True)
class LoraLayer:
    """LoRA of one layer: `down` (r, in), `up` (out, r), and DoRA's norms of the rows (out,)."""

    down: Tensor
    up: Tensor
    scale: float
    norms: Tensor | None = None
    is_embedding: bool = False

    def merge(self, weight: Tensor, start: int) -> Tensor:
        """Rows of the layer's matrix from `start` on, with LoRA, in float32."""
        rows = slice(start, start + len(weight))
        if self.is_embedding:  # its matrix is (in, out)
            return weight.float() + self.scale * (self.down[:, rows].T @ self.up.T)
        merged: Tensor = weight.float() + self.scale * (self.up[rows] @ self.down)
        if self.norms is None:
            return merged
        norms: Tensor = merged.norm(dim=1, keepdim=True)
        return merged * (self.norms[rows].reshape(-1, 1) / norms)


@dataclass
class Merge:
    """A VLM on disk and what is merged into it.

    Attributes:
        vlm: the model without weights; its names are those of the files.
        stored: the tensors on disk, by name.
        layers: LoRA by the name of its matrix.
        vocabulary: what the adapter does to the vocabulary.
        seg_row: (D,) of `<SEG>`, for input and output; None: as `vocabulary` says.
        dtype: of the result; None: as stored.
        is_exact: matrices that LoRA changes are written in float32, the others as `dtype` says.
        change, rounding: squared norms of what LoRA adds, and of what rounding to the dtype takes from it.
    """

    vlm: Any
    stored: Mapping[str, StoredTensor]
    seg_token_id: int
    layers: Mapping[str, LoraLayer] = field(default_factory=dict)
    vocabulary: Vocabulary = field(default_factory=lambda: Vocabulary(*[Rows()] * 2))
    seg_row: Tensor | None = None
    dtype: torch.dtype | None = None
    is_exact: bool = False
    change: float = 0.0
    rounding: float = 0.0

    def __post_init__(self) -> None:
        names = {id(tensor): name for name, tensor in self.vlm.named_parameters()}
        head, matrix = self.vlm.lm_head.weight, self.vlm.get_input_embeddings().weight
        self.head, self.matrix = "lm_head.weight", names[id(matrix)]
        self.was_tied = head is matrix
        separate = self.vocabulary.inputs is not self.vocabulary.outputs or self.matrix in self.layers
        self.is_tied = self.was_tied and not separate
        if self.was_tied:  # a file may hold the matrix twice
            self.stored = {name: tensor for name, tensor in self.stored.items() if name != self.head}
        own = {n: tuple(t.shape) for n, t in self.vlm.state_dict().items() if n != self.head or not self.was_tied}
        found = {name: tensor.shape for name, tensor in self.stored.items()}
        if wrong := sorted(name for name, shape in own.items() if found.get(name) != shape):
            raise SatlisaError(f"expected the tensor {wrong[0]} {own[wrong[0]]}, found {found.get(wrong[0], 'none')}")
        if wrong := [name for name in own if not self.stored[name].dtype.is_floating_point]:
            raise SatlisaError(f"{wrong[0]}: expected floating point numbers, found {self.stored[wrong[0]].dtype}")

    def dtype_of(self, name: str) -> torch.dtype:
        """The dtype in which a tensor is written."""
        if self.is_exact and name in self.layers:
            return torch.float32
        stored = self.stored[self.matrix if name == self.head and self.was_tied else name].dtype
        return self.dtype if self.dtype and stored.is_floating_point else stored

    def blocks(self, name: str) -> Iterator[Tensor]:
        """The rows of a tensor of the result."""
        source = self.stored[self.matrix if name == self.head and self.was_tied else name]
        tensor, layer, dtype = source.read(), self.layers.get(name), self.dtype_of(name)
        if name in (self.matrix, self.head):
            rows = self.vocabulary.inputs if name == self.matrix else self.vocabulary.outputs
            rows.put_into(tensor)
        if tensor.ndim == 0:
            yield tensor
            return
        size = max(1, _BLOCK // max(1, tensor[:1].numel()))
        for start in range(0, len(tensor), size):
            block = tensor[start : start + size]
            if layer:
                block = self._rounded(layer.merge(block, start), block, dtype)
            block = block.to(dtype)
            place = self.seg_token_id - start
            if self.seg_row is not None and name in (self.matrix, self.head) and 0 <= place < len(block):
                block = block.clone()
                block[place] = self.seg_row.to(dtype)
            if block.is_floating_point():
                check_finite({name: block}, source.path)
            yield block

    def _rounded(self, exact: Tensor, before: Tensor, dtype: torch.dtype) -> Tensor:
        rounded = exact.to(dtype)
        self.change += float((exact - before.float()).square().sum())
        self.rounding += float((rounded.float() - exact).square().sum())
        return rounded

    @property
    def lost(self) -> float:
        """The share of LoRA's change that rounding took: a ratio of norms."""
        return math.sqrt(self.rounding / self.change) if self.change else 0.0


def merge_model(
    model_dir: str | Path, output: Path, dtype: torch.dtype | None = None, *, is_exact: bool = False
) -> Merge:
    """Write a model directory as a merged one: the VLM with LoRA and `<SEG>` row in it, the other parts beside it.

    Args:
        model_dir: a folder or a hub id, as of `load_model`.
        output: a folder that does not exist or is empty; it appears complete.
        dtype: of the VLM's weights; None: as the base model stores them.
        is_exact: matrices that LoRA changes are in float32 all the same, so that rounding takes nothing of it.

    Raises:
        SatlisaError: not a model directory, `output` in use, or an adapter that cannot be merged; names what it is.
    """
    check_writable(output, "--output")
    if output.exists() and any(output.iterdir()):
        raise SatlisaError(f"--output: {output} is not empty; name another folder")
    folder = find_model_dir(model_dir)
    is_local = Path(model_dir).expanduser().is_dir()
    config = ModelConfig.from_json(folder / CONFIG_FILE)
    if config.is_merged:
        raise SatlisaError(f"{folder}: is merged already; copy the folder")
    made: list[Merge] = []

    def write(temporary: Path) -> None:
        made.append(write_vlm(folder, resolve_ids(config, folder, is_local), temporary, dtype=dtype, is_exact=is_exact))
        _write_parts(folder, config, made[0], temporary)

    with writing_to(output, "--output"):
        output.parent.mkdir(parents=True, exist_ok=True)
        atomic_replace(output, write)
    return made[0]


def write_vlm(
    folder: Path,
    config: ModelConfig,
    output: Path,
    *,
    with_adapter: bool = True,
    dtype: torch.dtype | None = None,
    is_exact: bool = False,
) -> Merge:
    """Write the VLM of a model directory as a folder that `transformers` loads.

    Args:
        folder: the model directory (`find_model_dir`).
        config: its configuration with ids that `load_parts` takes (`resolve_ids`).
        with_adapter: merge LoRA and `<SEG>` row into it; else the VLM stays as it is, and the tokenizer gets `<SEG>`.
        dtype, is_exact: as of `Merge`.
    """
    base, vlm = empty_model("vlm_model_id", config.vlm_model_id, Qwen3_5ForConditionalGeneration)
    processor = load_processor(config.vlm_model_id)
    use_tokenizer(processor, load_tokenizer(folder))
    token_id = add_seg_token(processor.tokenizer, vlm, config.seg_token)
    check_seg_token(folder, config, token_id)
    check_tokenizer(processor, vlm, str(folder))
    files = [stored_tensors(path) for path in weight_files(base)]
    stored = {name: tensor for file in files for name, tensor in file.items()}
    make = partial(Merge, vlm, stored, token_id, dtype=dtype, is_exact=is_exact)
    try:
        merge = _with_adapter(make, folder, vlm) if with_adapter else make()
    except SatlisaError as error:
        raise SatlisaError(f"{folder}, merged into {base}: {error}") from error
    output.mkdir(parents=True)
    _write_weights(merge, files, output)
    _write_settings(merge, base, processor, output)
    if merge.lost > _LOSS_SHOWN:
        logger.warning(
            "rounding to %s takes %.1f %% of what LoRA changes (ratio of norms); float32 keeps it",
            str(merge.dtype_of(next(iter(merge.layers)))).removeprefix("torch."),
            100 * merge.lost,
        )
    return merge


def _with_adapter(make: Callable[..., Merge], folder: Path, vlm: Any) -> Merge:
    """The merge with the adapter of a model directory."""
    source = folder / ADAPTER_FOLDER
    lora, tensors = read_adapter(source)
    vocabulary = read_vocabulary(lora, tensors, vlm, source)
    seg_row = read_seg_row(folder / SEG_ROW_FILE, vlm.get_input_embeddings().embedding_dim)
    _refuse_extras(lora, tensors, source)
    model, named = wrap_layers(vlm, lora, tensors, source)
    check_finite({name: tensor.float() for name, tensor in named.items()}, source)
    layers = dict(_lora_layers(model, named, source))
    plain = model.unload()  # the VLM without LoRA layers again
    assert plain is vlm
    return make(layers=layers, vocabulary=vocabulary, seg_row=seg_row)


def _refuse_extras(lora: Any, tensors: State, source: Path) -> None:
    """Refuse what cannot become part of a matrix."""
    for name in ("lora_bias", "bias"):
        if (value := getattr(lora, name)) not in (False, "none"):
            raise SatlisaError(f"{source}: {name} {value!r} cannot be merged: the VLM's layers have no such bias")
    known = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector")
    for name in tensors:
        if part_of_vocabulary(name) is None and not any(part in known for part in name.split(".")):
            raise SatlisaError(f"{source}: {name} cannot be merged; expected LoRA's tensors only")


def _lora_layers(model: Any, named: State, source: Path) -> Iterator[tuple[str, LoraLayer]]:
    """LoRA by the names of the VLM's matrices."""
    for name, module in model.get_base_model().named_modules():
        if not hasattr(module, "lora_A"):
            continue
        place = f"base_model.model.{name}."
        own = {key.removeprefix(place): tensor.float() for key, tensor in named.items() if key.startswith(place)}
        base, norms = module.get_base_layer(), own.get("lora_magnitude_vector")
        is_embedding = isinstance(base, nn.Embedding)
        if not isinstance(base, nn.Linear | nn.Embedding) or (is_embedding and norms is not None):
            kind = f"{'DoRA' if norms is not None else 'LoRA'} on {type(base).__name__}"
            raise SatlisaError(f"{source}: {name}: {kind} cannot be merged; expected LoRA on linear layers")
        parts = ("lora_embedding_A", "lora_embedding_B") if is_embedding else ("lora_A.weight", "lora_B.weight")
        down, up = (own[part] for part in parts)
        yield f"{name}.weight", LoraLayer(down, up, module.scaling["default"], norms, is_embedding)


def _write_weights(merge: Merge, files: list[dict[str, StoredTensor]], output: Path) -> None:
    """The weights in as many files as the base model has, with an index: it tells them from projector and decoder."""
    weight_map: dict[str, str] = {}
    total = 0
    for number, file in enumerate(files, 1):
        names = [name for name in file if name in merge.stored]
        if merge.matrix in names and merge.was_tied and not merge.is_tied:
            names.append(merge.head)
        shard = f"model-{number:05}-of-{len(files):05}.safetensors"
        shapes = {name: merge.stored.get(name, merge.stored[merge.matrix]).shape for name in names}
        total += write_tensors(output / shard, {n: (merge.dtype_of(n), s) for n, s in shapes.items()}, merge.blocks)
        weight_map |= dict.fromkeys(names, shard)
    _write_json(output / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def _write_settings(merge: Merge, base: Path, processor: Any, output: Path) -> None:
    """Configuration, processor, tokenizer and chat template."""
    for name in _COPIED:
        if (base / name).exists():
            shutil.copyfile(base / name, output / name)
    processor.save_pretrained(output)
    if not (output / "preprocessor_config.json").exists():  # programs older than the joint file
        processor.image_processor.save_pretrained(output)
    config = read_json(base / "config.json", MOST_TOKENIZER)
    if merge.dtype:
        config = _with_dtype(config, str(merge.dtype).removeprefix("torch."))
    if merge.was_tied and not merge.is_tied:
        config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False
    _write_json(output / "config.json", config)


def _with_dtype(config: dict[str, Any], dtype: str) -> dict[str, Any]:
    """The settings of a model with another dtype wherever one is named."""
    inner = {key: _with_dtype(value, dtype) if isinstance(value, dict) else value for key, value in config.items()}
    return inner | {key: dtype for key in ("dtype", "torch_dtype") if key in inner}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_parts(folder: Path, config: ModelConfig, merge: Merge, output: Path) -> None:
    """Projector and mask decoder as safetensors, and `model_config.json`."""
    paths = part_files(folder, config)
    projector, decoder = (read_states(path) for path in paths)
    _, sam = empty_model("sam_model_id", config.sam_model_id, SamModel)
    width, prompt = merge.vlm.config.text_config.hidden_size, sam.config.prompt_encoder_config.hidden_size
    hidden = projector_hidden_size(paths[0], projector, width, prompt, config.projector_hidden_size)
    with torch.device("meta"):
        expected = Projector(width, hidden, prompt)
    for module, states, path, name in (
        (expected, projector, paths[0], MERGED_PROJECTOR_FILE),
        (sam.mask_decoder, decoder, paths[1], MERGED_DECODER_FILE),
    ):
        state = {key: tensor.contiguous().clone() for key, tensor in match_part(module, states, path).items()}
        save_file(state, output / name, {"format": "pt"})
    if merge.seg_row is not None:  # the matrix has it too, rounded
        save_file({"seg_row": merge.seg_row.contiguous()}, output / SEG_ROW_FILE)
    changes = {"vlm_hidden_size": width, "sam_prompt_size": prompt, "projector_hidden_size": hidden}
    merged = replace(config.with_own_vlm("."), seg_token_id=merge.seg_token_id, **changes)
    merged.save(output / CONFIG_FILE)
