"""Load a PEFT adapter onto the language model, checking every tensor.

PEFT only warns about mismatched names, and the model then runs without its LoRA weights. PEFT also fails on an adapter
that contains the full embedding, if its row count differs from the base model's. This module refuses the former and
accepts the latter (`adapter_vocabulary`).

Adapters are untrusted. Only the fields that define the meaning of LoRA's tensors are passed to PEFT, which would
otherwise import a module (`megatron_core`) or download a tokenizer (prompt tuning) named in the configuration. Names
of layers are matched as names: as a regular expression, a stranger's could run for years. Ranks are compared with the
tensors before PEFT makes room for them.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor

from satlisa.errors import SatlisaError, first_line
from satlisa.pretrained.adapter_vocabulary import part_of_vocabulary
from satlisa.pretrained.state_matching import State
from satlisa.pretrained.tensor_files import check_finite, list_tensors, read_json, read_tensors

logger = logging.getLogger(__name__)
_CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
# Fields of a LoRA configuration that define the meaning of its tensors, ...
_MEANING = (
    *("r", "lora_alpha", "use_rslora", "use_dora", "lora_bias", "bias", "fan_in_fan_out", "rank_pattern"),
    *("alpha_pattern", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("modules_to_save", "trainable_token_indices", "ensure_weight_tying", "lora_dropout", "task_type"),
    "inference_mode",
)
# ... and fields about its origin and training, which do not affect inference.
_HISTORY = (
    *("peft_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision", "megatron_core"),
    *("loftq_config", "eva_config", "velora_config", "runtime_config", "qalora_group_size"),
)
# LoRA initializations that leave the base weights unchanged.
_PLAIN_STARTS = (True, "gaussian", "orthogonal", "eva")
_LARGEST_RANK = 1024  # the width of the language model; LoRA of a higher rank is no low rank
_LARGEST_ALPHA = 65_504  # of fp16; usual values are below 1,000
_NAME = re.compile(r"\^?[\w.-]+")  # of a layer, or the end of one; in PEFT a regular expression
_MAX_SHOWN = 6
# `target_modules` as `assemble.add_lora` writes it
_OWN_TARGETS = re.compile(r"\.\*language_model\\\.\.\*\\\.\(([\w|.\\-]+)\)")


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
    by_name = isinstance(state, dict) and all(isinstance(k, str) and isinstance(t, Tensor) for k, t in state.items())
    if not by_name:
        raise SatlisaError(f"{path}: expected tensors by name, found {type(state).__name__}")
    return dict(state)


def _read_config(path: Path) -> Any:
    content = read_json(path)
    if (kind := content.get("peft_type")) != "LORA":
        raise SatlisaError(f"{path}: expected the settings of a LoRA adapter (peft_type LORA), found {kind}")
    known = {item.name: item.default for item in fields(LoraConfig)}
    changes = {name for name, value in content.items() if value and value != known.get(name)}
    foreign = sorted(changes & known.keys() - {*_MEANING, *_HISTORY, "init_lora_weights"})
    if (content.get("init_lora_weights") or True) not in _PLAIN_STARTS:  # "pissa" and others change the base weights
        foreign.append("init_lora_weights")
    if foreign:
        raise SatlisaError(f"{path}: {', '.join(f'{name}={content[name]!r}' for name in foreign)} is not supported")
    if unknown := sorted(changes - known.keys() - {*_HISTORY}):
        logger.warning("%s: the installed PEFT does not know %s; ignored", path, ", ".join(unknown))
    try:
        return LoraConfig(**{name: content[name] for name in _MEANING if name in content.keys() & known.keys()})
    except Exception as error:  # values of the wrong type, mutually exclusive settings
        raise SatlisaError(f"{path}: not the settings of a LoRA adapter ({first_line(error)})") from error


def put_adapter(vlm: Any, config: Any, state: State, source: Path) -> Any:
    """Wrap the VLM with an adapter's LoRA layers. Its vocabulary is not touched (`adapter_vocabulary`).

    Raises:
        SatlisaError: missing, unexpected or misshapen LoRA tensors; lists expected and found names.
    """
    model, tensors = wrap_layers(vlm, config, state, source)
    set_peft_model_state_dict(model, tensors)
    check_finite(get_peft_model_state_dict(model, save_embedding_layers=False), source)
    return model


def wrap_layers(vlm: Any, config: Any, state: State, source: Path) -> tuple[Any, State]:
    """The VLM with LoRA layers as an adapter has them, not yet filled, and the adapter's tensors by their names there.

    Args:
        vlm: may be on the meta device.

    Raises:
        SatlisaError: as `put_adapter`.
    """
    lora = {name: tensor for name, tensor in state.items() if part_of_vocabulary(name) is None}
    if on_head := [name for name in lora if "lm_head" in name]:
        raise SatlisaError(
            f"{source}: expected LoRA on the language model's layers only, found it on the LM head too ({on_head[0]}), "
            "which is frozen here; train without lm_head in target_modules, or merge that layer"
        )
    _check_embedding_lora(lora, vlm.get_input_embeddings().num_embeddings, source)
    config.modules_to_save = config.trainable_token_indices = None  # already in the vocabulary, or in the <SEG> row
    config.ensure_weight_tying = False
    _name_layers(config, lora, vlm, source)
    try:
        model = PeftModel(vlm, config)
    except Exception as error:  # no such target modules, values of the wrong type
        raise SatlisaError(f"{source}: does not fit the base model ({first_line(error)})") from error
    return model, _under_own_names(get_peft_model_state_dict(model, save_embedding_layers=False), lora, source)


def _check_embedding_lora(lora: State, num_rows: int, source: Path) -> None:
    for name, tensor in lora.items():
        if "embed_tokens" in name and "lora_embedding_A" in name and tensor.shape[1:] != (num_rows,):
            raise SatlisaError(
                f"{source}: {name} {tuple(tensor.shape)}: LoRA on embed_tokens, for a vocabulary of another size than "
                f"the base model's {num_rows} rows; it was resized for training. Train <SEG> with "
                "trainable_token_indices, or without resizing"
            )


def _name_layers(config: Any, lora: State, vlm: Any, source: Path) -> None:
    """Give PEFT each layer by its full name, with its rank and alpha, in place of patterns; checks them."""
    layers = {_place(name): name for name, _ in vlm.named_modules() if name}
    ranks = {_layer(name): len(tensor) for name, tensor in lora.items() if ".lora_A" in name or "embedding_A" in name}
    targets = _target_layers(config, layers, source)
    if targets is None:
        targets = ranks.keys() & layers.keys()
    if targets != ranks.keys():
        raise _other_tensors(source, ", ".join(sorted(targets)[:_MAX_SHOWN]) or "no layers", lora)
    rank_of, alpha_of = (_by_layer(config, key, source) for key in ("rank_pattern", "alpha_pattern"))
    found = {
        place: (_look_up(rank_of, place, config.r), _look_up(alpha_of, place, config.lora_alpha)) for place in ranks
    }
    for place, (rank, alpha) in found.items():
        if rank != ranks[place] or not 0 < rank <= _LARGEST_RANK:
            raise SatlisaError(
                f"{source}: does not fit the base model: r or rank_pattern {rank!r}, tensors of rank {ranks[place]} "
                f"for {layers[place]}; expected the same, up to {_LARGEST_RANK}"
            )
        if not isinstance(alpha, int | float) or not abs(alpha) <= _LARGEST_ALPHA:
            raise SatlisaError(
                f"{source}: lora_alpha: expected a number, found {repr(alpha)[:100]}; "
                f"it may be {_LARGEST_ALPHA:,} at most"
            )
    config.target_modules = {layers[place] for place in ranks}
    config.exclude_modules = config.layers_to_transform = config.layers_pattern = None
    (config.r, config.lora_alpha), _ = Counter(found.values()).most_common(1)[0] if found else ((config.r, 1), 0)
    escaped = {re.escape(layers[place]): values for place, values in found.items()}
    config.rank_pattern = {name: rank for name, (rank, _) in escaped.items() if rank != config.r}
    config.alpha_pattern = {name: alpha for name, (_, alpha) in escaped.items() if alpha != config.lora_alpha}


def _target_layers(config: Any, layers: Iterable[str], source: Path) -> set[str] | None:
    """The layers that `target_modules` names; None where a pattern or a further setting decides: the tensors tell."""
    named, inside = config.target_modules, ""
    if isinstance(named, str) and (own := _OWN_TARGETS.fullmatch(named)):
        named, inside = own[1].replace("\\", "").split("|"), "layers."
    narrowed = config.exclude_modules or config.layers_to_transform is not None
    if isinstance(named, str) or named is None or narrowed:
        return None
    if not isinstance(named, list | set | tuple):
        raise SatlisaError(f"{source}: target_modules: expected names of layers, found {named!r}")
    wanted = {_place(str(name)) for name in named}
    return {layer for layer in layers if layer.startswith(inside) and not wanted.isdisjoint(_endings(layer))}


def _by_layer(config: Any, key: str, source: Path) -> dict[str, tuple[int, Any]]:
    """The values of `rank_pattern` or `alpha_pattern` by names of layers or their ends, with their order."""
    pattern = getattr(config, key) or {}
    if not isinstance(pattern, Mapping):
        raise SatlisaError(f"{source}: {key}: expected values by names of layers, found {str(pattern)[:100]}")
    names = [name.replace("\\.", ".") for name in pattern]
    if regular := [name for name in names if not _NAME.fullmatch(name)]:
        raise SatlisaError(
            f"{source}: {key}: expected names of layers, found the regular expression '{regular[0][:100]}'; name them"
        )
    values = enumerate(pattern.values())
    return {_place(name.removeprefix("^")): numbered for name, numbered in zip(names, values, strict=True)}


def _look_up(pattern: Mapping[str, tuple[int, Any]], layer: str, default: Any) -> Any:
    """The value of the first entry that names a layer or an end of its name, as PEFT takes it."""
    hits = [pattern[end] for end in _endings(layer) if end in pattern]
    return min(hits)[1] if hits else default


def _endings(layer: str) -> list[str]:
    """a.b.c, b.c and c."""
    parts = layer.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def _layer(name: str) -> str:
    """The place of the layer that a LoRA tensor belongs to."""
    return _place(name.removeprefix("base_model.model.").partition(".lora_")[0])


def _under_own_names(own: State, found: State, source: Path) -> State:
    """LoRA tensors renamed to PEFT's names for this model; the prefix before `layers.` may differ."""
    by_place = {_place(name): tensor for name, tensor in found.items()}
    wanted = {_place(name): name for name in own}
    shapes = {place: tuple(own[name].shape) for place, name in wanted.items()}
    if len(by_place) != len(found) or {p: tuple(t.shape) for p, t in by_place.items()} != shapes:
        raise _other_tensors(source, list_tensors(own), found)
    if integers := [name for name, tensor in found.items() if not tensor.is_floating_point()]:
        raise SatlisaError(
            f"{source}: {integers[0]}: expected floating point numbers, found {found[integers[0]].dtype}"
        )
    return {name: by_place[place] for place, name in wanted.items()}


def _other_tensors(source: Path, expected: str, found: State) -> SatlisaError:
    return SatlisaError(
        f"{source}: its LoRA tensors are not those of the base model; was it trained on another one? "
        f"expected: {expected}; found: {list_tensors(found)}"
    )


def _place(name: str) -> str:
    """A LoRA tensor's name without the prefix before `layers.`."""
    return name[name.index("layers.") :] if "layers." in name else name
