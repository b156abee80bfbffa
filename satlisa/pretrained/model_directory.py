"""A model directory (docs/architecture.md#model-directory): what `train.py` writes and `load_model` reads.

Loading executes no code: weights are safetensors, or `.pt` read with `weights_only=True`, and tokenizers load without
remote code. `state_matching` maps the tensor names of other programs' checkpoints to ours, or refuses.
"""

import logging
import os
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer

from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError, first_line
from satlisa.model.assemble import add_seg_token, assemble
from satlisa.model.satlisa import SatLisa
from satlisa.pretrained.adapter_vocabulary import read_vocabulary
from satlisa.pretrained.base_checks import check_folder
from satlisa.pretrained.base_models import check_model_id, describe_load_error, load_parts
from satlisa.pretrained.peft_adapter import put_adapter, read_adapter
from satlisa.pretrained.state_matching import State, find_state_dicts, match_unique
from satlisa.pretrained.tensor_files import MOST_TENSORS, check_file, check_finite, list_tensors, read_tensors
from satlisa.runtime.atomic_files import is_incomplete, replace_together
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
# What the two folders may hold of an earlier model; all else in them is the user's.
FILES_OF_A_MODEL = {
    *("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "tokenizer.json", "added_tokens.json"),
    *("tokenizer_config.json", "special_tokens_map.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model"),
    *("chat_template.jinja", "chat_template.json", "additional_chat_templates"),
}
_NAME = "model"  # of what the mark of an incomplete directory is about
_REQUIRED = (CONFIG_FILE, ADAPTER_FOLDER, PROJECTOR_FILE, DECODER_FILE)
_WIDEST_PROJECTOR = 2**15
_MOST_OF_A_PROJECTOR = 20  # tensors
_MAX_SHOWN = 3

# transformers and PEFT change torch's default dtype, its init functions and its device while they build a model.
_LOADING = threading.Lock()


def save_model(model: SatLisa, model_dir: str | Path, trained: State | None = None) -> None:
    """Save the trained parts of a model, and the config to rebuild the rest, into `model_dir`.

    They appear together: a reader finds the earlier model, the new one, or a mark that says that neither is there
    (docs/architecture.md#model-directory). A full disk leaves the earlier one. Files of the user stay.

    Args:
        trained: the trained parameters by name, if the caller already has them (`trained_state`).
    """
    folder = Path(model_dir)
    folder.mkdir(parents=True, exist_ok=True)
    state = trained_state(model) if trained is None else trained
    adapter, projector, decoder = (
        _below(state, part) for part in ("vlm.", "projector.", "segmenter.sam.mask_decoder.")
    )
    writes = {
        ADAPTER_FOLDER: partial(_save_adapter, model, adapter),
        TOKENIZER_FOLDER: model.processor.tokenizer.save_pretrained,
        PROJECTOR_FILE: partial(torch.save, projector),
        DECODER_FILE: partial(torch.save, decoder),
        SEG_ROW_FILE: partial(save_file, {"seg_row": state["seg_row"]}),
        CONFIG_FILE: model.config.save,
    }
    replace_together(folder, _NAME, writes, ours=FILES_OF_A_MODEL.__contains__)


def check_parts(folder: Path) -> None:
    """Refuse a folder in which a model could not be saved: a file lies in the place of a folder, or the reverse.

    Raises:
        SatlisaError: names it.
    """
    for part in (ADAPTER_FOLDER, TOKENIZER_FOLDER, PROJECTOR_FILE, DECODER_FILE, SEG_ROW_FILE, CONFIG_FILE):
        path, is_folder = folder / part, part in (ADAPTER_FOLDER, TOKENIZER_FOLDER)
        if path.exists() and not path.is_symlink() and path.is_dir() != is_folder:
            new, found = ("folder", "file") if is_folder else ("file", "folder")
            raise SatlisaError(
                f"OUTPUT_DIR: the model's {new} {path} is to be written where a {found} lies; move it away"
            )


def _save_adapter(model: SatLisa, adapter: State, folder: Path) -> None:
    model.vlm.save_pretrained(folder, save_embedding_layers=False, state_dict=adapter)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's form to fill in; the user's own stays


def _below(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def load_model(model_dir: str | Path, device: str | torch.device | None = None) -> SatLisa:
    """Load a trained model for inference. Threads may call it at the same time; they load one after the other.

    Args:
        model_dir: a folder written by `train.py`, one in the published layout, or a hub id.
        device: "cuda", "cpu", "mps", …; by default the best available.

    Returns:
        The model in eval mode, in the device's default precision.

    Raises:
        SatlisaError: not a model directory, or weights that do not fit the base models.
    """
    folder = find_model_dir(model_dir)
    hardware = detect(str(device) if device is not None else "auto", may_fall_back=True)
    try:
        with _LOADING:
            model = _load(folder, hardware.dtype, is_local=Path(model_dir).expanduser().is_dir())
    except (SatlisaError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # files of others can be wrong in more ways than are foreseen
        raise SatlisaError(f"{folder}: cannot be loaded ({type(error).__name__}: {first_line(error)})") from error
    return model.to(hardware.device).eval()


def load_to_train(model_dir: str | Path, config: ModelConfig, dtype: torch.dtype) -> SatLisa:
    """Load a trained model to train it further, on the CPU.

    Args:
        model_dir: as of `load_model`.
        config: the model's own, with changes that need no other weights.
        dtype: compute dtype.

    Raises:
        SatlisaError: as `load_model`; or the model has more than LoRA, `<SEG>` row, projector and decoder, which
            training could not keep.
    """
    folder = find_model_dir(model_dir, "INIT_FROM: ")
    with _LOADING:
        model = _load(folder, dtype, Path(model_dir).expanduser().is_dir(), config)
    if model.seg_head_row is not None:
        raise SatlisaError(f"INIT_FROM: {folder}: <SEG> has two rows, of input and output; training keeps one alone")
    return model


def _load(folder: Path, dtype: torch.dtype, is_local: bool, to_train: ModelConfig | None = None) -> SatLisa:
    """The model of a directory, on the CPU. The caller holds `_LOADING`.

    `to_train`: the configuration of a run that trains the model further.
    """
    config = to_train or ModelConfig.from_json(folder / CONFIG_FILE)
    for key in ("vlm_model_id", "sam_model_id"):
        check_model_id(getattr(config, key), f"{folder / CONFIG_FILE}: {key}", folders_allowed=is_local)
    lora, tensors = read_adapter(folder / ADAPTER_FOLDER)
    projector, decoder = (_read_states(folder / name) for name in (PROJECTOR_FILE, DECODER_FILE))
    parts = load_parts(config, dtype, load_tokenizer(folder / TOKENIZER_FOLDER))
    seg_token_id = add_seg_token(parts.processor.tokenizer, parts.vlm, config.seg_token)
    if config.seg_token_id not in (None, seg_token_id):
        raise SatlisaError(
            f"{folder}: {CONFIG_FILE} says {config.seg_token} is token {config.seg_token_id}, its tokenizer "
            f"{seg_token_id}; the files belong to different models"
        )
    vocabulary = read_vocabulary(lora, tensors, parts.vlm, folder / ADAPTER_FOLDER)
    if to_train and vocabulary.changes_others(parts.vlm, seg_token_id):
        raise SatlisaError(
            f"INIT_FROM: {folder}: its adapter trained vocabulary rows besides <SEG>; training here would not keep them"
        )
    vocabulary.put_into(parts.vlm)
    seg_row = own_row = _read_seg_row(folder / SEG_ROW_FILE, parts.vlm.get_input_embeddings().embedding_dim)
    if own_row is None:
        seg_row, head_row = vocabulary.seg_rows(parts.vlm, seg_token_id)
        if not vocabulary.holds(seg_token_id):
            logger.warning(
                "%s: neither %s nor a <SEG> row in the adapter; using the base model's row", folder, SEG_ROW_FILE
            )
    config.projector_hidden_size = _projector_hidden_size(
        folder / PROJECTOR_FILE,
        projector,
        parts.vlm.config.text_config.hidden_size,
        parts.sam.config.prompt_encoder_config.hidden_size,
        config.projector_hidden_size,
    )
    with_adapter = partial(put_adapter, config=lora, state=tensors, source=folder / ADAPTER_FOLDER)
    model = assemble(parts, config, dtype, with_adapter, seg_row)
    if own_row is None:
        _use_row_of_adapter(model, head_row)
    _fill(model.projector, projector, folder / PROJECTOR_FILE)
    _fill(model.segmenter.sam.mask_decoder, decoder, folder / DECODER_FILE)
    return model


def load_tokenizer(folder: Path) -> Any | None:
    """The tokenizer of a model directory, or None to use the base model's."""
    if not folder.is_dir():
        return None
    try:
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except Exception as error:  # transformers raises many types for missing or damaged files
        raise SatlisaError(
            f"{folder}: not a readable tokenizer ({describe_load_error(error)}); copy it again"
        ) from error


def find_model_dir(model_dir: str | Path, setting: str = "") -> Path:
    """The local folder of a model directory; a hub id is downloaded. Messages begin with `setting`.

    Raises:
        SatlisaError: neither a model directory nor a reachable hub id.
    """
    folder = Path(model_dir).expanduser()
    if not folder.is_dir():
        if folder.exists() or str(model_dir).startswith((".", "/", "~")) or str(model_dir).count("/") != 1:
            raise SatlisaError(
                f"{setting}{model_dir}: no such model directory; give a folder that train.py wrote, or a hub id"
            )
        try:
            folder = Path(snapshot_download(str(model_dir)))
        except Exception as error:  # the hub client raises its own, HTTP and OS errors
            raise SatlisaError(
                f"{setting}{model_dir}: neither a local folder nor available from the hub "
                f"({first_line(error)}); give a folder that train.py wrote"
            ) from error
    if is_incomplete(folder, _NAME):
        raise SatlisaError(
            f"{setting}{folder}: the training that writes this model is at work on it, or was interrupted there: its "
            "parts do not belong together. Run the same train.py command again, which resumes and repairs it"
        )
    missing = [name for name in _REQUIRED if not (folder / name).exists()]
    if missing:
        found = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
        raise SatlisaError(f"{setting}{folder}: not a model directory, {', '.join(missing)} missing (found: {found})")
    _check_files(folder)
    return folder


def _check_files(folder: Path) -> None:
    """Refuse what cannot be read, before anything is."""
    check_file(folder / CONFIG_FILE)
    for name in (PROJECTOR_FILE, DECODER_FILE, SEG_ROW_FILE):
        if name in _REQUIRED or os.path.lexists(folder / name):
            check_file(folder / name, MOST_TENSORS)
    for name in (ADAPTER_FOLDER, TOKENIZER_FOLDER):
        if (folder / name).is_dir():
            check_folder(folder / name)


def _read_states(path: Path) -> list[State]:
    """All state dicts in a `.pt` file, at any nesting depth."""
    loaded = read_tensors(path)
    states = find_state_dicts(loaded)
    if not states:
        keys = list(loaded) if isinstance(loaded, Mapping) else type(loaded).__name__
        raise SatlisaError(f"{path}: expected a state dict of tensors, found {keys}")
    return states


def _read_seg_row(path: Path, width: int) -> Tensor | None:
    """The `<SEG>` row (width,) of our own file; None where there is none (docs/architecture.md#model-directory)."""
    if not path.exists():
        return None
    state = read_tensors(path)
    row: Tensor | None = state.get("seg_row")
    if row is None or row.shape != (width,) or not row.is_floating_point():
        shapes = {name: tuple(tensor.shape) for name, tensor in list(state.items())[:_MAX_SHOWN]}
        raise SatlisaError(
            f"{path}: expected seg_row ({width},), found {shapes}; was it trained on another base model?"
        )
    check_finite({"seg_row": row.float()}, path)
    return row


def _use_row_of_adapter(model: SatLisa, head_row: Tensor) -> None:
    """Separate the `<SEG>` rows of input and output where the adapter has two, or LoRA on the embedding."""
    embedding = model.qwen.get_input_embeddings()
    with torch.no_grad():
        if hasattr(embedding, "base_layer"):
            model.seg_row.copy_(embedding(torch.tensor(model.seg_token_id)))
        if not torch.equal(head_row, model.seg_row):
            model.seg_head_row = head_row


def _projector_hidden_size(path: Path, states: list[State], width: int, prompt_size: int, configured: int) -> int:
    """Hidden width h of a projector, from the shapes of its two matrices, (h, width) and (prompt_size, h)."""
    if unlike := [kind for state in states if (kind := _other_projector(state, width, prompt_size))]:
        raise SatlisaError(
            f"{path}: expected a projector Linear({width}, h) · GELU · Linear(h, {prompt_size}), found {unlike[0]}: "
            "such a projector is not supported"
        )
    for state in states:
        shapes = {tuple(tensor.shape) for tensor in state.values() if tensor.ndim == 2}
        sizes = {h for h, entry in shapes if entry == width and (prompt_size, h) in shapes and h <= _WIDEST_PROJECTOR}
        if sizes:
            return configured if configured in sizes else min(sizes)
    found = "; ".join(list_tensors(state) for state in states[:_MAX_SHOWN])
    raise SatlisaError(
        f"{path}: expected two matrices that map {width} → h → {prompt_size}, found {found}; "
        "was it trained on another base model?"
    )


def _other_projector(state: State, width: int, prompt_size: int) -> str:
    """What makes a chain of layers from `width` to `prompt_size` another projector than ours; "" for anything else."""
    matrices = [tensor for tensor in state.values() if tensor.ndim == 2]
    inputs, outputs = {matrix.shape[1] for matrix in matrices}, {len(matrix) for matrix in matrices}
    is_chain = {width} >= inputs - outputs and {prompt_size} >= outputs - inputs
    if not is_chain or not 0 < len(state) <= _MOST_OF_A_PROJECTOR:
        return ""
    vectors = len(state) - len(matrices)
    if len(matrices) == 2 and vectors == 2:
        return ""
    kind = f"{len(matrices)} linear layer" + "s" * (len(matrices) != 1)
    extra = {True: " and a normalization besides", False: ""}[vectors > len(matrices)]
    return f"{kind}{extra}{'' if vectors else ' and no bias'} ({list_tensors(state)})"


def _fill(module: torch.nn.Module, states: list[State], path: Path) -> None:
    matched = match_unique(module.state_dict(), states, str(path))
    if wrong := [name for name, tensor in matched.items() if not tensor.is_floating_point()]:
        raise SatlisaError(f"{path}: {wrong[0]}: expected floating point numbers, found {matched[wrong[0]].dtype}")
    module.load_state_dict(matched)
    check_finite(module.state_dict(), path)


def fingerprint_model(model_dir: Path) -> str:
    """12 hex digits that change with a model's files; not with the logs and checkpoints of its training."""
    adapter, tokenizer = f"{ADAPTER_FOLDER}/**/*", f"{TOKENIZER_FOLDER}/**/*"
    files = (CONFIG_FILE, adapter, PROJECTOR_FILE, DECODER_FILE, tokenizer, SEG_ROW_FILE)
    return fingerprint_files(model_dir, files, complete=True)[:12]
