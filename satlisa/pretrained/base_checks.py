"""Checks of the base models: the right kind and a possible size before anything is loaded, every tensor after.

`transformers` fills what a checkpoint lacks with random numbers and only warns; a size that somebody edited takes all
memory before it fails; a token id beyond the vocabulary fails at the first question.
"""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from satlisa.errors import SatlisaError, first_line
from satlisa.pretrained.tensor_files import MOST_TENSORS, MOST_TOKENIZER, check_file, read_json
from satlisa.processing.chat import as_turns, encode_prompt

logger = logging.getLogger(__name__)

_SETTINGS = {"qwen3_5": "VLM_MODEL", "sam": "SAM_MODEL"}  # model_type of config.json → where such a model belongs
_COUNTS = (  # of layers and the like, each of which takes time to build
    *("num_hidden_layers", "depth", "num_labels", "num_multimask_outputs", "num_point_embeddings", "iou_head_depth"),
)
_LARGEST_COUNT = 256
_MOST_PARAMETERS, _FEW_PARAMETERS = 2**34, 2**26  # few fit into memory, whatever the weights are
_LARGEST_SAM_IMAGE = 2048  # pixels of a side; SAM and SlimSAM have 1024
_WEIGHTS = (".safetensors", ".bin")
_LARGE = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt")
_MAX_SHOWN = 3


def check_folder(folder: Path) -> None:
    """Refuse files of a model or a tokenizer that are no regular files, or larger than such files are.

    Files that no loader reads are not looked at.

    Raises:
        SatlisaError: one of them, by name.
    """
    for path in [*folder.iterdir(), *folder.glob("additional_chat_templates/*")]:
        if path.suffix in _WEIGHTS:
            check_file(path, MOST_TENSORS)
        elif path.name in _LARGE or path.name.endswith(".index.json"):
            check_file(path, MOST_TOKENIZER)
        elif path.suffix in (".json", ".jinja"):
            check_file(path)
        if path.name.endswith(".index.json"):
            shards = read_json(path, MOST_TOKENIZER).get("weight_map") or {}
            if outside := [str(shard) for shard in shards.values() if Path(str(shard)).name != str(shard)]:
                raise SatlisaError(f"{path}: expected names of files beside it, found '{outside[0]}'")


def check_config(folder: Path, model_class: Any, is_local: bool) -> None:
    """Check a base model's `config.json`, and whether its weights can hold a model of that size.

    Args:
        model_class: of `transformers`, whose kind it must be.
        is_local: the folder holds the weights too, not only the settings.

    Raises:
        SatlisaError: another kind of model, or a size that no such model has.
    """
    path = folder / "config.json"
    if (folder / "adapter_config.json").exists():
        raise SatlisaError(f"expected a base model, found an adapter in {folder}; name the model it was trained on")
    config = read_json(path)
    expected, found = model_class.config_class.model_type, config.get("model_type")
    if found != expected:
        belongs = _SETTINGS.get(found) if isinstance(found, str) else None
        advice = f"it belongs in {belongs}; are the two swapped?" if belongs else "is it the right model?"
        raise SatlisaError(f"expected a model of the kind {expected}, found {found!r} in {path}; {advice}")
    _check_counts(config, path)
    _check_rotation(config.get("text_config"), path)
    with torch.device("meta"):
        model = model_class(model_class.config_class.from_dict(_without_kernels(config)))
    size = sum(parameter.numel() for parameter in model.parameters())
    held = sum(f.stat().st_size for f in folder.iterdir() if f.suffix in _WEIGHTS) if is_local else _MOST_PARAMETERS
    if size > max(_FEW_PARAMETERS, min(held, _MOST_PARAMETERS)):
        raise SatlisaError(
            f"{path}: describes {size:,} parameters, more than its weights can hold ({held:,} bytes); copy it again"
        )


def _check_counts(config: Mapping[str, Any], path: Path) -> None:
    for name, value in config.items():
        if isinstance(value, Mapping):
            _check_counts(value, path)
        elif name in _COUNTS and isinstance(value, int) and value > _LARGEST_COUNT:
            raise SatlisaError(f"{path}: {name}: expected at most {_LARGEST_COUNT}, found {value:.3g}")


def _check_rotation(text: Any, path: Path) -> None:
    """The rotary embedding of a VLM fails at the first question, not before, where its sections do not fit a head."""
    rope = text.get("rope_parameters") if isinstance(text, Mapping) else None
    if not isinstance(rope, Mapping) or "mrope_section" not in rope:
        return
    section, share, size = rope["mrope_section"], rope.get("partial_rotary_factor", 1), text.get("head_dim")
    if sum(section) * 2 != int(size * share) or not 0 < share <= 1:
        raise SatlisaError(f"{path}: mrope_section {section}: expected half of {share} of head_dim {size} in sum")


def _without_kernels(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without those that name an attention kernel, which `transformers` would fetch."""
    inner = {name: _without_kernels(value) if isinstance(value, Mapping) else value for name, value in config.items()}
    return {name: value for name, value in inner.items() if "attn_implementation" not in name}


def check_loaded(model_id: str, info: Mapping[str, Any]) -> None:
    """Refuse a model of which some tensors were not in its weights: they are random now.

    Args:
        info: what `from_pretrained` tells with `output_loading_info`.

    Raises:
        SatlisaError: names tensors that are missing or of another shape.
    """
    wrong = [f"{name} is missing" for name in sorted(info["missing_keys"])]
    wrong += [
        f"{name} is {tuple(found)}, by config.json {tuple(expected)}"
        for name, found, expected in sorted(info["mismatched_keys"])
    ]
    if wrong:
        more = f" and {len(wrong) - _MAX_SHOWN} more" if len(wrong) > _MAX_SHOWN else ""
        raise SatlisaError(
            f"its weights are not those of its config.json: {'; '.join(wrong[:_MAX_SHOWN])}{more}; such layers would "
            "be random. Copy or download it again"
        )
    if info["unexpected_keys"]:
        logger.debug("%s: not used: %s", model_id, ", ".join(sorted(info["unexpected_keys"])))


def check_vlm_images(processor: Any, vision: Any) -> None:
    """Refuse an image processor whose patches are not those of the vision tower, or that keeps any image's size."""
    images = processor.image_processor
    _check_steps(images, "preprocessor_config.json", do_resize=True, do_rescale=True, do_normalize=True)
    _expect("patch_size", images.patch_size, vision.patch_size)
    _expect("merge_size", images.merge_size, vision.spatial_merge_size)
    _expect("temporal_patch_size", images.temporal_patch_size, vision.temporal_patch_size)
    for edge in ("longest_edge", "shortest_edge"):
        if not isinstance(images.size[edge], int) or images.size[edge] < 1:
            raise SatlisaError(f"preprocessor_config.json: {edge}: expected pixels, found {images.size[edge]!r}")


def check_sam_images(images: Any, vision: Any) -> None:
    """Refuse an image processor that does not give SAM's square, or a square that no SAM has."""
    _check_steps(images, "preprocessor_config.json", do_resize=True, do_rescale=True, do_normalize=True, do_pad=True)
    side = vision.image_size
    if not 0 < vision.patch_size <= side <= _LARGEST_SAM_IMAGE or side % vision.patch_size:
        raise SatlisaError(
            f"config.json: image_size: expected a multiple of patch_size {vision.patch_size} up to "
            f"{_LARGEST_SAM_IMAGE}, found {side}"
        )
    _expect("size longest_edge", images.size["longest_edge"], side)
    _expect("pad_size", (images.pad_size["height"], images.pad_size["width"]), (side, side))
    pixels = images(images=[Image.new("RGB", (64, 48))], return_tensors="pt")["pixel_values"]
    _expect("the shape of an image", tuple(pixels.shape), (1, 3, side, side))
    if not pixels.isfinite().all():
        raise SatlisaError("preprocessor_config.json: makes an image infinite or NaN")


def _check_steps(images: Any, file: str, **steps: bool) -> None:
    for name, expected in steps.items():
        _expect(name, getattr(images, name), expected)
    for name in ("image_mean", "image_std"):
        values = getattr(images, name)
        usable = [v for v in values if isinstance(v, float | int) and math.isfinite(v) and (v or name == "image_mean")]
        if len(usable) != 3 or len(values) != 3:
            raise SatlisaError(f"{file}: {name}: expected three numbers, found {values!r}")


def _expect(name: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise SatlisaError(f"preprocessor_config.json: {name}: expected {expected}, as the model needs, found {found}")


def check_tokenizer(processor: Any, vlm: Any, source: str) -> None:
    """Refuse a tokenizer of another base model, one without its settings, and an unusable chat template.

    Args:
        source: where the tokenizer comes from, for the message.

    Raises:
        SatlisaError: one of these.
    """
    tokenizer, image_token = processor.tokenizer, processor.image_token
    image_id, found = vlm.config.image_token_id, tokenizer.convert_tokens_to_ids(image_token)
    if found != image_id or processor.image_token_id != image_id:
        raise SatlisaError(
            f"{source}: {image_token} is token {found}, but {image_id} in the base model; is it another model's?"
        )
    if tokenizer.pad_token_id is None or tokenizer.eos_token_id is None:
        raise SatlisaError(
            f"{source}: the tokenizer has no padding or no end token; copy its tokenizer_config.json again"
        )
    _check_token_ids(tokenizer, vlm, source)
    try:
        prompt = encode_prompt(processor, as_turns("?"), Image.new("RGB", (64, 64)))
    except Exception as error:  # a template can raise anything
        raise SatlisaError(
            f"{source}: its chat template cannot be used ({first_line(error)}); copy it again"
        ) from error
    if not prompt.pixel_values.isfinite().all():
        raise SatlisaError("preprocessor_config.json: makes an image infinite or NaN")
    if image_id not in prompt.input_ids:
        raise SatlisaError(f"{source}: its chat template has no image placeholder; copy it again")


def _check_token_ids(tokenizer: Any, vlm: Any, source: str) -> None:
    """Refuse token ids that are no rows of the vocabulary matrix."""
    rows = vlm.get_input_embeddings().num_embeddings
    ends = vlm.generation_config.eos_token_id
    ids = {
        f"{source}: the largest token id": max(tokenizer.get_vocab().values()),
        "config.json: image_token_id": vlm.config.image_token_id,
    }
    for number, end in enumerate(ends if isinstance(ends, list) else [ends]):
        ids[f"generation_config.json: eos_token_id {number}"] = tokenizer.eos_token_id if end is None else end
    for name, token_id in ids.items():
        if type(token_id) is not int or not 0 <= token_id < rows:
            raise SatlisaError(f"{name}: expected a token id below {rows}, the base model's rows, found {token_id!r}")
