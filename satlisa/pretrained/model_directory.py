"""A model directory (docs/architecture.md#model-directory): what `train.py` writes and `load_model` reads.

Loading executes no code: weights are safetensors, or `.pt` read with `weights_only=True`, and tokenizers load without
remote code. `state_matching` maps the tensor names of other programs' checkpoints to ours, or refuses.
"""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer

from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError, first_line
from satlisa.model.assemble import Parts, add_seg_token, assemble
from satlisa.model.satlisa import SatLisa
from satlisa.pretrained.base_models import check_model_id, describe_load_error, load_parts
from satlisa.pretrained.peft_adapter import find_seg_row, put_adapter, read_adapter
from satlisa.pretrained.state_matching import State, find_state_dicts, match_unique
from satlisa.pretrained.tensor_files import read_tensors
from satlisa.processing.chat import as_turns, encode_prompt
from satlisa.runtime.atomic_files import atomic_replace
from satlisa.runtime.fingerprint import fingerprint_files
from satlisa.runtime.hardware import detect
from satlisa.runtime.sharding import trained_state

logger = logging.getLogger(__name__)

CONFIG_FILE = "model_config.json"
ADAPTER_FOLDER = "vlm_lora"
PROJECTOR_FILE = "seg_projector.pt"
DECODER_FILE = "sam_mask_decoder.pt"
TOKENIZER_FOLDER = "tokenizer"
SEG_ROW_FILE = "seg_token.safetensors"
_REQUIRED = (CONFIG_FILE, ADAPTER_FOLDER, PROJECTOR_FILE, DECODER_FILE)

Adapter = tuple[Any, State]


def save_model(model: SatLisa, model_dir: str | Path, trained: State | None = None) -> None:
    """Save the trained parts of a model, and the config to rebuild the rest, into `model_dir`.

    Each file and folder is written atomically: a reader never sees an incomplete one.

    Args:
        trained: the trained parameters by name, if the caller already has them (`trained_state`).
    """
    folder = Path(model_dir)
    folder.mkdir(parents=True, exist_ok=True)
    state = trained_state(model) if trained is None else trained
    adapter, projector, decoder = (
        _below(state, part) for part in ("vlm.", "projector.", "segmenter.sam.mask_decoder.")
    )
    save_adapter = partial(model.vlm.save_pretrained, save_embedding_layers=False, state_dict=adapter)
    atomic_replace(folder / ADAPTER_FOLDER, save_adapter)
    atomic_replace(folder / TOKENIZER_FOLDER, model.processor.tokenizer.save_pretrained)
    atomic_replace(folder / PROJECTOR_FILE, partial(torch.save, projector))
    atomic_replace(folder / DECODER_FILE, partial(torch.save, decoder))
    atomic_replace(folder / SEG_ROW_FILE, partial(save_file, {"seg_row": state["seg_row"]}))
    model.config.save(folder / CONFIG_FILE)


def _below(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def load_model(model_dir: str | Path, device: str | torch.device | None = None) -> SatLisa:
    """Load a trained model for inference.

    Args:
        model_dir: a folder written by `train.py`, one in the published layout, or a hub id.
        device: "cuda", "cpu", "mps", …; by default the best available.

    Returns:
        The model in eval mode, in the device's default precision.

    Raises:
        SatlisaError: not a model directory, or weights that do not fit the base models.
    """
    folder = find_model_dir(model_dir)
    config = ModelConfig.from_json(folder / CONFIG_FILE)
    local = Path(model_dir).expanduser().is_dir()
    for key in ("vlm_model_id", "sam_model_id"):
        check_model_id(getattr(config, key), f"{folder / CONFIG_FILE}: {key}", folders_allowed=local)
    hardware = detect(str(device) if device is not None else "auto")
    adapter = read_adapter(folder / ADAPTER_FOLDER)
    projector, decoder = (_read_states(folder / name) for name in (PROJECTOR_FILE, DECODER_FILE))
    tokenizer = _load_tokenizer(folder / TOKENIZER_FOLDER)
    parts = load_parts(config, hardware.dtype, tokenizer)
    if tokenizer is not None:
        _check_tokenizer(parts, folder / TOKENIZER_FOLDER)
    seg_token_id = add_seg_token(parts.processor.tokenizer, parts.vlm, config.seg_token)
    if config.seg_token_id not in (None, seg_token_id):
        raise SatlisaError(
            f"{folder}: {CONFIG_FILE} says {config.seg_token} is token {config.seg_token_id}, its tokenizer "
            f"{seg_token_id}; the files belong to different models"
        )
    seg_row = _load_seg_row(folder, adapter, parts.vlm.get_input_embeddings().weight, seg_token_id)
    config.projector_hidden_size = _projector_hidden_size(
        folder / PROJECTOR_FILE,
        projector,
        parts.vlm.config.text_config.hidden_size,
        parts.sam.config.prompt_encoder_config.hidden_size,
        config.projector_hidden_size,
    )
    with_adapter = partial(put_adapter, config=adapter[0], state=adapter[1], source=folder / ADAPTER_FOLDER)
    model = assemble(parts, config, hardware.dtype, with_adapter, seg_row)
    _fill(model.projector, projector, folder / PROJECTOR_FILE)
    _fill(model.segmenter.sam.mask_decoder, decoder, folder / DECODER_FILE)
    return model.to(hardware.device).eval()


def _load_tokenizer(folder: Path) -> Any | None:
    """The tokenizer of a model directory, or None to use the base model's."""
    if not folder.is_dir():
        return None
    try:
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except Exception as error:  # transformers raises many types for missing or damaged files
        raise SatlisaError(
            f"{folder}: not a readable tokenizer ({describe_load_error(error)}); copy it again"
        ) from error


def _check_tokenizer(parts: Parts, folder: Path) -> None:
    """Refuse a tokenizer of another base model, one without its settings, and an unusable chat template."""
    tokenizer, image_token = parts.processor.tokenizer, parts.processor.image_token
    image_id, found = parts.vlm.config.image_token_id, tokenizer.convert_tokens_to_ids(image_token)
    if found != image_id:
        raise SatlisaError(
            f"{folder}: {image_token} is token {found}, but {image_id} in the base model; is it another model's?"
        )
    if tokenizer.pad_token_id is None or tokenizer.eos_token_id is None:
        raise SatlisaError(
            f"{folder}: the tokenizer has no padding or no end token; copy its tokenizer_config.json again"
        )
    try:
        prompt = encode_prompt(parts.processor, as_turns("?"), Image.new("RGB", (64, 64)))
    except Exception as error:  # a template can raise anything
        raise SatlisaError(
            f"{folder}: its chat template cannot be used ({first_line(error)}); copy it again"
        ) from error
    if image_id not in prompt.input_ids:
        raise SatlisaError(f"{folder}: its chat template has no image placeholder; copy it again")


def find_model_dir(model_dir: str | Path) -> Path:
    """The local folder of a model directory; a hub id is downloaded.

    Raises:
        SatlisaError: neither a model directory nor a reachable hub id.
    """
    folder = Path(model_dir).expanduser()
    if not folder.is_dir():
        if folder.exists() or str(model_dir).startswith((".", "/", "~")) or str(model_dir).count("/") != 1:
            raise SatlisaError(f"{model_dir}: no such model directory; give a folder that train.py wrote, or a hub id")
        try:
            folder = Path(snapshot_download(str(model_dir)))
        except Exception as error:  # the hub client raises its own, HTTP and OS errors
            raise SatlisaError(
                f"{model_dir}: neither a local folder nor available from the hub "
                f"({first_line(error)}); give a folder that train.py wrote"
            ) from error
    missing = [name for name in _REQUIRED if not (folder / name).exists()]
    if missing:
        found = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
        raise SatlisaError(f"{folder}: not a model directory, {', '.join(missing)} missing (found: {found})")
    return folder


def _read_states(path: Path) -> list[State]:
    """All state dicts in a `.pt` file, at any nesting depth."""
    loaded = read_tensors(path)
    states = find_state_dicts(loaded)
    if not states:
        keys = list(loaded) if isinstance(loaded, Mapping) else type(loaded).__name__
        raise SatlisaError(f"{path}: expected a state dict of tensors, found {keys}")
    return states


def _load_seg_row(folder: Path, adapter: Adapter, matrix: Tensor, seg_token_id: int) -> Tensor:
    """The `<SEG>` row: from our own file, else the adapter, else the base embedding (docs/architecture.md)."""
    width, path = matrix.shape[1], folder / SEG_ROW_FILE
    if not path.exists():
        found = find_seg_row(*adapter, seg_token_id, width)
        if found is None:
            logger.warning(
                "%s: neither %s nor a <SEG> row in the adapter; using the base model's row", folder, path.name
            )
        return matrix[seg_token_id].detach().float() if found is None else found
    state = read_tensors(path)
    row: Tensor | None = state.get("seg_row")
    if row is None or row.shape != (width,):
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        raise SatlisaError(
            f"{path}: expected seg_row ({width},), found {shapes}; was it trained on another base model?"
        )
    return row


def _projector_hidden_size(path: Path, states: list[State], width: int, prompt_size: int, configured: int) -> int:
    """Hidden width h of a projector, from the shapes of its two matrices, (h, width) and (prompt_size, h)."""
    for state in states:
        shapes = {tuple(tensor.shape) for tensor in state.values() if tensor.ndim == 2}
        sizes = {h for h, entry in shapes if entry == width and (prompt_size, h) in shapes}
        if sizes:
            return configured if configured in sizes else min(sizes)
    found = [{name: tuple(tensor.shape) for name, tensor in state.items()} for state in states]
    raise SatlisaError(
        f"{path}: expected two matrices that map {width} → h → {prompt_size}, found {found}; "
        "was it trained on another base model?"
    )


def _fill(module: torch.nn.Module, states: list[State], path: Path) -> None:
    module.load_state_dict(match_unique(module.state_dict(), states, str(path)))


def fingerprint_model(model_dir: Path) -> str:
    """12 hex digits that change with a model's files; not with the logs and checkpoints of its training."""
    adapter, tokenizer = f"{ADAPTER_FOLDER}/**/*", f"{TOKENIZER_FOLDER}/**/*"
    files = (CONFIG_FILE, adapter, PROJECTOR_FILE, DECODER_FILE, tokenizer, SEG_ROW_FILE)
    return fingerprint_files(model_dir, files, complete=True)[:12]
