"""The only place that loads pretrained parts and wires them together: LoRA, `<SEG>` row, freezing, precision.

Hub ids, local folders in the hub's layout and the packaged demo backbone (`demo:vlm`, `demo:sam`) take the same way.
None of them gets to run code of its own: no pickle, no module beside the weights, no kernel that a configuration names.
"""

import pickle
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from peft import LoraConfig, get_peft_model
from tokenizers import AddedToken
from torch import Tensor
from transformers import AutoProcessor, Qwen3_5ForConditionalGeneration, SamImageProcessor, SamModel

from satlisa.config import ModelConfig, is_hub_id
from satlisa.errors import SatlisaError, first_line
from satlisa.model.delta_net import choose_functions, keep_in_float32, layer_dtype
from satlisa.model.satlisa import SatLisa
from satlisa.model.segmenter import Segmenter
from satlisa.processing.chat import limit_image_tokens

_DEMO_WEIGHTS = Path(__file__).parent.parent / "demo" / "weights"
# `attn_implementation`: transformers would download and run a kernel that a config.json names; it chooses itself now.
_NO_FOREIGN_CODE: dict[str, Any] = {"trust_remote_code": False, "weights_only": True, "attn_implementation": None}


@dataclass(frozen=True)
class Parts:
    """Pretrained parts before wiring: the VLM and its processor, SAM and its image processor."""

    vlm: Any
    processor: Any
    sam: Any
    sam_processor: Any


def load_parts(config: ModelConfig, dtype: torch.dtype, tokenizer: Any | None = None) -> Parts:
    """Load both pretrained models from the hub, a local folder or the demo backbone.

    Args:
        dtype: of the VLM's frozen weights. SAM stays float32: it is small, and its decoder is trained.
        tokenizer: used instead of the VLM's own, with its chat template (a model directory's `tokenizer/`).

    Raises:
        SatlisaError: a model that cannot be found or read.
    """
    vlm_source, sam_source = model_source(config.vlm_model_id), model_source(config.sam_model_id)
    _load("vlm_model_id", config.vlm_model_id, lambda: _find(vlm_source))
    _load("sam_model_id", config.sam_model_id, lambda: _find(sam_source))
    processor = _load(
        "vlm_model_id",
        config.vlm_model_id,
        lambda: AutoProcessor.from_pretrained(vlm_source, trust_remote_code=False),
    )
    vlm = _load(
        "vlm_model_id",
        config.vlm_model_id,
        lambda: Qwen3_5ForConditionalGeneration.from_pretrained(vlm_source, dtype=dtype, **_NO_FOREIGN_CODE),
    )
    sam = _load(
        "sam_model_id",
        config.sam_model_id,
        lambda: SamModel.from_pretrained(sam_source, dtype=torch.float32, **_NO_FOREIGN_CODE),
    )
    images = _load("sam_model_id", config.sam_model_id, lambda: SamImageProcessor.from_pretrained(sam_source))
    if tokenizer is not None:
        processor.tokenizer = tokenizer
        processor.chat_template = tokenizer.chat_template or processor.chat_template
    return Parts(vlm, processor, sam, images)


def model_source(model_id: str) -> str:
    """Where `from_pretrained` finds a model: `demo:` names the packaged backbone, everything else goes as it is.

    Raises:
        SatlisaError: a packaged backbone that there is not.
    """
    if not model_id.startswith("demo:"):
        return model_id
    packaged = sorted(path.name for path in _DEMO_WEIGHTS.iterdir() if path.is_dir())
    if (name := model_id.removeprefix("demo:")) not in packaged:
        raise SatlisaError(f"'{model_id}': expected {' or '.join(f'demo:{known}' for known in packaged)}")
    return str(_DEMO_WEIGHTS / name)


def _find(source: str) -> None:
    """Fail at once where a model is neither here nor to be had: transformers would ask the hub for two minutes."""
    if not Path(source).is_dir():
        snapshot_download(source, allow_patterns="config.json")


def check_model_id(model_id: str, source: str, folders_allowed: bool) -> None:
    """Refuse the id of a base model, read from somebody's file, that could lead anywhere.

    Args:
        source: the file and its key, for the message.
        folders_allowed: besides hub ids and `demo:…`, take an absolute path of a folder.

    Raises:
        SatlisaError: another path, an address, a `..`.
    """
    path = Path(model_id)
    if model_id.startswith("demo:"):
        model_source(model_id)
    elif path.is_absolute() and ".." not in path.parts:
        if not folders_allowed:
            raise SatlisaError(
                f"{source}: '{model_id}' is a path, and a downloaded model may only name models of the hub"
            )
        if not path.is_dir():
            raise SatlisaError(f"{source}: there is no folder {model_id}; put the base model there, or change the path")
    elif not is_hub_id(model_id):
        kinds = "a hub id (owner/name)" + (" or an absolute path" if folders_allowed else "")
        raise SatlisaError(f"{source}: expected {kinds}, found '{model_id}'")


def _load(setting: str, model_id: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except pickle.UnpicklingError as error:  # torch's own text recommends to unpickle it all the same
        raise SatlisaError(
            f"{setting}: '{model_id}' has weights that are damaged or hold more than tensors, which could run code; "
            "not loaded. Take a copy in safetensors"
        ) from error
    except Exception as error:  # whatever a missing, damaged or foreign file makes transformers raise
        raise SatlisaError(
            f"{setting}: cannot load '{model_id}': {explain(error)}. Without a reachable hub, give a local folder "
            "in the hub's layout (VLM_MODEL=…, SAM_MODEL=…), or run the packaged demo with PRESET=demo."
        ) from error


def explain(error: BaseException) -> str:
    """An error of transformers in one line of ours; its advice to trust code that a model brings is left out."""
    if "trust_remote_code" in str(error):
        return "it wants to run code of its own, which is never done"
    return first_line(error)


def assemble(
    parts: Parts,
    config: ModelConfig,
    compute_dtype: torch.dtype = torch.float32,
    with_adapter: Callable[[Any], Any] | None = None,
    seg_row: Tensor | None = None,
) -> SatLisa:
    """Wire the parts into a model: `<SEG>` in the tokenizer, LoRA under the language model, everything else frozen.

    Args:
        config: its widths and `seg_token_id` are replaced by the parts' own.
        with_adapter: puts a trained adapter on the VLM instead of fresh LoRA layers (`adapter.put_adapter`).
        seg_row: (D,) the `<SEG>` row; without it, the mean of the used rows.

    Raises:
        SatlisaError: no vocabulary row for `<SEG>`, or LoRA targets that the language model does not have.
    """
    seg_token_id = add_seg_token(parts.processor.tokenizer, parts.vlm, config.seg_token)
    config = replace(
        config,
        seg_token_id=seg_token_id,
        vlm_hidden_size=parts.vlm.config.text_config.hidden_size,
        sam_prompt_size=parts.sam.config.prompt_encoder_config.hidden_size,
    )
    limit_image_tokens(parts.processor, config.max_image_tokens)
    choose_functions()
    if layer_dtype(compute_dtype) != compute_dtype:
        keep_in_float32(parts.vlm)
    if seg_row is None:
        matrix = parts.vlm.get_input_embeddings().weight
        seg_row = matrix.detach()[:seg_token_id].float().mean(dim=0)
    vlm = add_lora(parts.vlm, config) if with_adapter is None else with_adapter(parts.vlm)
    segmenter = Segmenter(parts.sam, parts.sam_processor)
    model = SatLisa(vlm, segmenter, parts.processor, config, seg_row, compute_dtype)
    set_trainable(model)
    return model


def add_seg_token(tokenizer: Any, vlm: Any, seg_token: str) -> int:
    """Put `<SEG>` on the next spare vocabulary row and return its id.

    The matrix is never resized to the tokenizer: Qwen3.5's has 248,320 rows for 248,077 tokens, and
    `resize_token_embeddings(len(tokenizer))` would shrink it.
    """
    if seg_token not in tokenizer.get_vocab():
        tokenizer.add_tokens([AddedToken(seg_token, special=True)])
    token_id, rows = int(tokenizer.convert_tokens_to_ids(seg_token)), vlm.get_input_embeddings().num_embeddings
    if token_id >= rows:
        raise SatlisaError(f"{seg_token} would be token {token_id}, but the base model has {rows} vocabulary rows")
    return token_id


def add_lora(vlm: Any, config: ModelConfig) -> Any:
    """Fresh LoRA layers on the token mixers of the language model (the vision tower has Linear layers too)."""
    names = "|".join(re.escape(name) for name in config.lora_target_modules)
    targets = rf".*language_model\..*\.({names})"
    if not any(re.fullmatch(targets, name) for name, _ in vlm.named_modules()):
        raise SatlisaError(f"lora_target_modules: the language model has none of {config.lora_target_modules}")
    vlm.name_or_path = config.vlm_model_id  # what PEFT writes down; a local path would be of this machine alone
    settings = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets,
    )
    return get_peft_model(vlm, settings)


def set_trainable(model: SatLisa) -> None:
    """Train LoRA, the `<SEG>` row, the projector and the mask decoder, in float32; freeze the rest."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part_of(name) in TRAINED)
        if parameter.requires_grad and parameter.dtype != torch.float32:
            parameter.data = parameter.data.float()


TRAINED = ("LoRA", "<SEG> row", "projector", "SlimSAM mask decoder")
_PARTS = ("VLM", "LoRA", "<SEG> row", "projector", "SlimSAM encoder", "SlimSAM prompt encoder", "SlimSAM mask decoder")


def part_of(parameter_name: str) -> str:
    """The part of the figure (DESIGN §1) that a parameter of the model belongs to."""
    for marker, part in {
        "lora_": "LoRA",
        "seg_row": "<SEG> row",
        "projector.": "projector",
        "sam.mask_decoder.": "SlimSAM mask decoder",
        "sam.vision_encoder.": "SlimSAM encoder",
        "sam.": "SlimSAM prompt encoder",
    }.items():
        if marker in parameter_name:
            return part
    return "VLM"


def count_parameters(model: SatLisa) -> dict[str, tuple[int, int]]:
    """(all, trainable) parameters of each part, tied weights counted once."""
    counts: dict[str, tuple[int, int]] = dict.fromkeys(_PARTS, (0, 0))
    for name, parameter in model.named_parameters():
        total, trainable = counts[part_of(name)]
        number = parameter.numel()
        counts[part_of(name)] = (total + number, trainable + number * parameter.requires_grad)
    return counts


def parameter_table(counts: dict[str, tuple[int, int]]) -> str:
    """The counts as lines of text: part, parameters, trainable, share of all trained parameters."""
    total, trained = (sum(column) for column in zip(*counts.values(), strict=True))
    rows: Iterable[tuple[str, tuple[int, int]]] = [*counts.items(), ("total", (total, trained))]
    lines = [f"{'part':<24}{'parameters':>14}{'trainable':>14}{'share':>9}"]
    lines += [f"{part:<24}{n:>14,}{t:>14,}{t / max(total, 1):>9.2%}" for part, (n, t) in rows]
    return "\n".join(lines)


def checkpoint_layers(language_model: Any) -> None:
    """Keep only the layers' inputs for the backward pass, which computes the rest anew (transformers' own)."""
    # transformers 5.24 gave it another name.
    name = "activation_checkpointing_enable"
    enable = getattr(language_model, name, None) or language_model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
