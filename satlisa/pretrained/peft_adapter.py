"""Load a PEFT adapter onto the language model, checking every tensor.

PEFT only warns about mismatched names, and the model then runs without its LoRA weights. PEFT also fails on an adapter
that contains the full embedding, if its row count differs from the base model's. This module refuses the former and
accepts the latter.

Adapters are untrusted. Only the fields that define the meaning of LoRA's tensors are passed to PEFT, which would
otherwise import a module (`megatron_core`) or download a tokenizer (prompt tuning) named in the configuration.
"""

import json
import logging
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor

from satlisa.errors import SatlisaError, first_line
from satlisa.pretrained.state_matching import State
from satlisa.pretrained.tensor_files import list_tensors, read_tensors

logger = logging.getLogger(__name__)
_CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
# Fields of a LoRA configuration that define the meaning of its tensors, ...
_MEANING = (
    *("r", "lora_alpha", "use_rslora", "use_dora", "lora_bias", "bias", "fan_in_fan_out", "rank_pattern"),
    *("alpha_pattern", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("modules_to_save", "trainable_token_indices", "lora_dropout", "task_type", "inference_mode"),
)
# ... and fields about its origin and training, which do not affect inference.
_HISTORY = (
    *("peft_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision", "megatron_core"),
    *("loftq_config", "eva_config", "velora_config", "runtime_config", "qalora_group_size", "ensure_weight_tying"),
)
# LoRA initializations that leave the base weights unchanged.
_PLAIN_STARTS = (True, "gaussian", "orthogonal", "eva")
_EMBEDDING = re.compile(r"(?:embed_tokens|lm_head)(?!.*lora_)")  # names of vocabulary matrices, or of single rows


def read_adapter(folder: Path) -> tuple[Any, State]:
    """The PEFT configuration and the tensors of an adapter.

    Raises:
        SatlisaError: a file is missing, damaged, or contains more than tensors.
    """
    path = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if path is None or not (folder / _CONFIG).is_file():
        found = ", ".join(sorted(p.name for p in folder.iterdir())) if folder.is_dir() else "no folder"
        raise SatlisaError(f"{folder}: expected {_CONFIG} and {_WEIGHTS[0]}, found {found or 'nothing'}")
    return _read_config(folder / _CONFIG), _read_tensors(path)


def _read_tensors(path: Path) -> State:
    state = read_tensors(path)
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise SatlisaError(f"{path}: expected tensors by name, found {type(state).__name__}")
    return dict(state)


def _read_config(path: Path) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SatlisaError(f"{path}: not a readable JSON file ({first_line(error)}); copy it again") from error
    kind = content.get("peft_type") if isinstance(content, dict) else type(content).__name__
    if kind != "LORA":
        raise SatlisaError(f"{path}: expected the settings of a LoRA adapter (peft_type LORA), found {kind}")
    known = {item.name: item.default for item in fields(LoraConfig)}
    changes = {name for name, value in content.items() if value and value != known.get(name)}
    foreign = sorted(changes & known.keys() - {*_MEANING, *_HISTORY, "init_lora_weights"})
    if (
        content.get("init_lora_weights") or True
    ) not in _PLAIN_STARTS:  # "pissa" and others also change the base weights
        foreign.append("init_lora_weights")
    if foreign:
        raise SatlisaError(f"{path}: {', '.join(f'{name}={content[name]!r}' for name in foreign)} is not supported")
    if unknown := sorted(changes - known.keys() - {*_HISTORY}):
        logger.warning("%s: the installed PEFT does not know %s; ignored", path, ", ".join(unknown))
    try:
        return LoraConfig(**{name: content[name] for name in _MEANING if name in content})
    except Exception as error:  # values of the wrong type, mutually exclusive settings
        raise SatlisaError(f"{path}: not the settings of a LoRA adapter ({first_line(error)})") from error


def put_adapter(vlm: Any, config: Any, state: State, source: Path) -> Any:
    """Wrap the VLM with an adapter. Vocabulary rows in the adapter are copied into the base embedding, in place.

    Raises:
        SatlisaError: missing, unexpected or misshapen LoRA tensors; lists expected and found names.
    """
    lora = {name: tensor for name, tensor in state.items() if not _EMBEDDING.search(name)}
    if on_head := [name for name in lora if "lm_head" in name]:
        raise SatlisaError(
            f"{source}: expected LoRA on the language model's layers only, found it on the LM head too ({on_head[0]}), "
            "which is frozen here; train without lm_head in target_modules, or merge that layer"
        )
    matrix = vlm.get_input_embeddings().weight
    for name, tensor in state.items():
        if _is_matrix(name, tensor, matrix.shape[1]):
            rows = min(len(tensor), len(matrix))
            with torch.no_grad():
                matrix[:rows] = tensor[:rows].to(matrix.dtype)
    config.modules_to_save = config.trainable_token_indices = None  # already in the embedding, or in the <SEG> row
    try:
        model = PeftModel(vlm, config)
    except Exception as error:  # no such target modules, values of the wrong type
        raise SatlisaError(f"{source}: does not fit the base model ({first_line(error)})") from error
    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    set_peft_model_state_dict(model, _under_own_names(own, lora, source))
    return model


def _is_matrix(name: str, tensor: Tensor, width: int) -> bool:
    """Whether this is a vocabulary matrix with any number of rows, rather than PEFT's trained rows of one."""
    return bool(_EMBEDDING.search(name)) and "trainable_tokens" not in name and tensor.shape[1:] == (width,)


def _under_own_names(own: State, found: State, source: Path) -> State:
    """LoRA tensors renamed to PEFT's names for this model; the prefix before `layers.` may differ."""
    by_place = {_place(name): tensor for name, tensor in found.items()}
    wanted = {_place(name): name for name in own}
    shapes = {place: tuple(own[name].shape) for place, name in wanted.items()}
    if len(by_place) != len(found) or {p: tuple(t.shape) for p, t in by_place.items()} != shapes:
        raise SatlisaError(
            f"{source}: its LoRA tensors are not those of the base model; was it trained on another one? "
            f"expected: {list_tensors(own)}; found: {list_tensors(found)}"
        )
    return {name: by_place[place] for place, name in wanted.items()}


def _place(name: str) -> str:
    """A LoRA tensor's name without the prefix before `layers.`."""
    return name[name.index("layers.") :] if "layers." in name else name


def find_seg_row(config: Any, state: State, seg_token_id: int, width: int) -> Tensor | None:
    """The `<SEG>` row (width,) from an adapter's vocabulary matrix or PEFT's trainable token rows, or None."""
    indices = config.trainable_token_indices or []
    rows = list(next(iter(indices.values())) if isinstance(indices, dict) else indices)
    for name, tensor in state.items():
        if _is_matrix(name, tensor, width) and len(tensor) > seg_token_id:
            return tensor[seg_token_id].float()
        if "trainable_tokens" in name and seg_token_id in rows and tensor.shape == (len(rows), width):
            return tensor[rows.index(seg_token_id)].float()
    return None
