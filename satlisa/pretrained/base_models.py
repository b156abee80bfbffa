"""Load the pretrained base models.

Hub ids, local folders in the hub's layout and the packaged demo backbone (`demo:vlm`, `demo:sam`) share one code path.
None of them can run code: no pickles, no Python modules from the repository, no kernels named in a config.
"""

import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from transformers import AutoProcessor, Qwen3_5ForConditionalGeneration, SamImageProcessor, SamModel

from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError, first_line
from satlisa.model.assemble import Parts
from satlisa.pretrained.base_checks import (
    check_config,
    check_folder,
    check_loaded,
    check_sam_images,
    check_tokenizer,
    check_vlm_images,
)
from satlisa.pretrained.tensor_files import refuse_pickle
from satlisa.runtime.locations import is_hub_id

_OF_A_MODEL = ("*.safetensors", "*.bin", "*.json", "*.jinja", "merges.txt", "vocab.txt")  # what is downloaded of one
_DEMO_WEIGHTS = Path(__file__).parent.parent / "demo" / "weights"

# `attn_implementation=None` overrides config.json, where a hub kernel may be named that transformers would run.
_HOW: dict[str, Any] = {"trust_remote_code": False, "weights_only": True, "attn_implementation": None}
_HOW |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # check_loaded refuses them, by name


def load_parts(config: ModelConfig, dtype: torch.dtype, tokenizer: Any | None = None) -> Parts:
    """Load both pretrained models from the hub, a local folder or the demo backbone.

    Args:
        dtype: of the VLM's frozen weights. SAM stays float32: it is small, and its decoder is trained.
        tokenizer: replaces the VLM's own and its chat template (a model directory's `tokenizer/`).

    Raises:
        SatlisaError: a model cannot be found or read, is of another kind, lacks tensors, or does not fit its own
            processor or the tokenizer.
    """
    vlm_source, sam_source = model_source(config.vlm_model_id), model_source(config.sam_model_id)
    loading_vlm = partial(_loading, "vlm_model_id", config.vlm_model_id)
    loading_sam = partial(_loading, "sam_model_id", config.sam_model_id)
    with loading_vlm():
        _find(vlm_source, Qwen3_5ForConditionalGeneration)
    with loading_sam():
        _find(sam_source, SamModel)
    with loading_vlm():
        processor = AutoProcessor.from_pretrained(vlm_source, trust_remote_code=False)
        vlm = _load(Qwen3_5ForConditionalGeneration, vlm_source, dtype)
        check_vlm_images(processor, vlm.config.vision_config)
        use_tokenizer(processor, tokenizer)
    with loading_sam():
        sam = _load(SamModel, sam_source, torch.float32)
        images = SamImageProcessor.from_pretrained(sam_source)
        check_sam_images(images, sam.config.vision_config)
    check_tokenizer(processor, vlm, tokenizer.name_or_path if tokenizer else f"vlm_model_id: '{config.vlm_model_id}'")
    return Parts(vlm, processor, sam, images)


def use_tokenizer(processor: Any, tokenizer: Any | None) -> None:
    """Give a processor the tokenizer of a model directory and its chat template; None leaves its own."""
    if tokenizer is not None:
        processor.tokenizer = tokenizer
        processor.chat_template = tokenizer.chat_template or processor.chat_template


def load_processor(vlm_model_id: str) -> Any:
    """The processor of a VLM, which makes token ids and image patches, without the weights.

    Raises:
        SatlisaError: as `load_parts`.
    """
    with _loading("vlm_model_id", vlm_model_id):
        source = model_source(vlm_model_id)
        if Path(source).is_dir():
            check_folder(Path(source))
        else:
            snapshot_download(source, allow_patterns="config.json")  # fails fast without a hub
        return AutoProcessor.from_pretrained(source, trust_remote_code=False)


def _load(model_class: Any, source: str, dtype: torch.dtype) -> Any:
    """A model of `transformers`, every tensor of it from its weights."""
    library = logging.getLogger("transformers")
    level = library.level
    library.setLevel(logging.ERROR)  # it reports what check_loaded refuses
    try:
        model, info = model_class.from_pretrained(source, dtype=dtype, **_HOW)
    finally:
        library.setLevel(level)
    check_loaded(source, info)
    return model


def model_source(model_id: str) -> str:
    """The argument for `from_pretrained`: `demo:…` becomes the packaged folder, other ids are unchanged.

    Raises:
        SatlisaError: no packaged model of this name.
    """
    if not model_id.startswith("demo:"):
        return model_id
    packaged = sorted(path.name for path in _DEMO_WEIGHTS.iterdir() if path.is_dir())
    if (name := model_id.removeprefix("demo:")) not in packaged:
        raise SatlisaError(f"'{model_id}': expected {' or '.join(f'demo:{known}' for known in packaged)}")
    return str(_DEMO_WEIGHTS / name)


def _find(source: str, model_class: Any) -> None:
    """Fail fast, before a model is loaded: it is not there, of another kind, or of an impossible size.

    transformers would retry for two minutes where a model is neither local nor downloadable.
    """
    is_local = Path(source).is_dir()
    folder = Path(source if is_local else snapshot_download(source, allow_patterns="config.json"))
    if is_local:
        check_folder(folder)
    check_config(folder, model_class, is_local)


def empty_model(setting: str, model_id: str, model_class: Any) -> tuple[Path, Any]:
    """The folder of a base model, downloaded where it is a hub id, and the model without weights (on the meta device).

    Raises:
        SatlisaError: as `load_parts`.
    """
    source = model_source(model_id)
    with _loading(setting, model_id):
        _find(source, model_class)
        folder = Path(source) if Path(source).is_dir() else Path(snapshot_download(source, allow_patterns=_OF_A_MODEL))
        config = model_class.config_class.from_pretrained(str(folder))
        with torch.device("meta"):
            return folder, model_class._from_config(config, attn_implementation=None, dtype=torch.float32)


def resolve_ids(config: ModelConfig, folder: Path, is_local: bool) -> ModelConfig:
    """The configuration of a model directory as `load_parts` takes it: a VLM in the directory by its full path.

    Args:
        folder: the model directory.
        is_local: it was not downloaded, so that it may name other folders of this machine.

    Raises:
        SatlisaError: an id that names something else (`check_model_id`), or leaves the directory.
    """
    source = f"{folder / 'model_config.json'}: "
    if not config.brings_vlm:
        check_model_id(config.vlm_model_id, f"{source}vlm_model_id", is_local)
    check_model_id(config.sam_model_id, f"{source}sam_model_id", is_local)
    if not config.brings_vlm:
        return config
    place = folder / config.vlm_model_id
    if ".." in Path(config.vlm_model_id).parts or not place.resolve().is_relative_to(folder.resolve()):
        raise SatlisaError(
            f"{source}vlm_model_id: expected a folder in the model directory, found '{config.vlm_model_id}', which "
            "leaves it"
        )
    if not (place / "config.json").exists():
        raise SatlisaError(
            f"{source}vlm_model_id: expected a VLM in {place}, found no config.json there; copy the model directory "
            "again, with all that is in it"
        )
    return replace(config, vlm_model_id=str(place.resolve()))


def check_model_id(model_id: str, source: str, folders_allowed: bool) -> None:
    """Check a base model's id read from an untrusted file.

    Args:
        source: the file and its key, for the message.
        folders_allowed: also accept an absolute path of a folder, besides hub ids and `demo:…`.

    Raises:
        SatlisaError: a relative path, a URL, or a path with `..`.
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


@contextmanager
def _loading(setting: str, model_id: str) -> Iterator[None]:
    """Any error meanwhile, as one line that names the setting and the model."""
    try:
        yield
    except SatlisaError as error:
        raise SatlisaError(f"{setting}: '{model_id}': {error}") from error
    except pickle.UnpicklingError as error:
        raise refuse_pickle(f"{setting}: '{model_id}'") from error
    except Exception as error:  # transformers raises many types for missing, damaged or foreign files
        raise SatlisaError(
            f"{setting}: cannot load '{model_id}': {describe_load_error(error)}. Without a reachable hub, give a local "
            "folder in the hub's layout (VLM_MODEL=…, SAM_MODEL=…), or run the packaged demo with PRESET=demo."
        ) from error


def describe_load_error(error: BaseException) -> str:
    """A transformers error in one line, without its advice to set `trust_remote_code`."""
    if "trust_remote_code" in str(error):
        return "it needs to run its own code, which is not supported"
    return first_line(error)
