"""A model directory (docs/architecture.md#model-directory): what `train.py` writes and `load_model` reads.

Loading executes no code: weights are safetensors, or `.pt` read with `weights_only=True`, and tokenizers load without
remote code. `state_matching` maps the tensor names of other programs' checkpoints to ours, or refuses.
"""

import hashlib
import logging
import os
import threading
from dataclasses import replace
from fnmatch import fnmatch
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
from satlisa.pretrained.adapter_vocabulary import Rows, Vocabulary, read_vocabulary
from satlisa.pretrained.base_checks import check_folder
from satlisa.pretrained.base_models import describe_load_error, load_parts, resolve_ids
from satlisa.pretrained.peft_adapter import put_adapter, read_adapter
from satlisa.pretrained.state_matching import State
from satlisa.pretrained.tensor_files import MOST_TENSORS, check_file
from satlisa.pretrained.trained_parts import match_part, projector_hidden_size, read_seg_row, read_states
from satlisa.runtime.atomic_files import is_incomplete, mark_incomplete, replace_together
from satlisa.runtime.fingerprint import fingerprint_files
from satlisa.runtime.hardware import detect
from satlisa.runtime.locations import existing_place
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
MERGED_PROJECTOR_FILE = "seg_projector.safetensors"  # of a merged model, whose files other programs read too
MERGED_DECODER_FILE = "sam_mask_decoder.safetensors"
_NAME = "model"  # of what the mark of an incomplete directory is about
_OF_A_VLM = ("*.safetensors", "*.bin", "*.json", "*.jinja", "*.txt")

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
    if model.config.is_merged:
        raise SatlisaError(f"{folder}: a merged model has no LoRA layers to save; copy its folder")
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


def invalidate_model(folder: Path) -> None:
    """Have the model in a folder refused until the next one is saved there; where there is none, change nothing."""
    if (folder / CONFIG_FILE).exists():
        mark_incomplete(folder, _NAME)


def is_of_vlm(name: str) -> bool:
    """Whether a file in a VLM's folder is one of its own, by name; the others are the user's."""
    return any(fnmatch(name, pattern) for pattern in _OF_A_VLM)


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


def load_to_train(
    model_dir: str | Path, config: ModelConfig, dtype: torch.dtype, vlm: Path | None = None, *, fresh: bool = False
) -> SatLisa:
    """Load a trained model to train it further, on the CPU. A merged model gets fresh LoRA layers.

    Args:
        model_dir: as of `load_model`.
        config: the model's own, with changes that need no other weights.
        dtype: compute dtype.
        vlm: a folder with its VLM; by default `config` names it.
        fresh: LoRA is merged into that VLM; put fresh layers on it.

    Raises:
        SatlisaError: as `load_model`; or the model has more than LoRA, `<SEG>` row, projector and decoder, which
            training could not keep.
    """
    folder = find_model_dir(model_dir, "INIT_FROM: ")
    with _LOADING:
        model = _load(folder, dtype, Path(model_dir).expanduser().is_dir(), config, vlm, fresh)
    if model.seg_head_row is not None:
        raise SatlisaError(f"INIT_FROM: {folder}: <SEG> has two rows, of input and output; training keeps one alone")
    return model


def _load(
    folder: Path,
    dtype: torch.dtype,
    is_local: bool,
    to_train: ModelConfig | None = None,
    vlm: Path | None = None,
    fresh: bool = False,
) -> SatLisa:
    """The model of a directory, on the CPU. The caller holds `_LOADING`.

    `to_train`: the configuration of a run that trains the model further; `vlm`, `fresh`: as of `load_to_train`.
    """
    own = ModelConfig.from_json(folder / CONFIG_FILE)
    config = to_train or own
    is_plain = own.is_merged or fresh  # the VLM has LoRA and the vocabulary in it already
    source = resolve_ids(replace(config, vlm_model_id=str(vlm)) if vlm else config, folder, is_local or bool(vlm))
    adapter = None if is_plain else read_adapter(folder / ADAPTER_FOLDER)
    paths = part_files(folder, own)
    projector, decoder = (read_states(path) for path in paths)
    parts = load_parts(source, dtype, load_tokenizer(folder))
    seg_token_id = add_seg_token(parts.processor.tokenizer, parts.vlm, config.seg_token)
    check_seg_token(folder, config, seg_token_id)
    vocabulary = Vocabulary(Rows(), Rows())
    if adapter:
        vocabulary = read_vocabulary(*adapter, parts.vlm, folder / ADAPTER_FOLDER)
        if to_train and vocabulary.changes_others(parts.vlm, seg_token_id):
            raise SatlisaError(
                f"INIT_FROM: {folder}: its adapter trained vocabulary rows besides <SEG>; training here would not keep "
                "them. MERGE_INIT=1 merges them into the VLM"
            )
        vocabulary.put_into(parts.vlm)
    seg_row = own_row = read_seg_row(folder / SEG_ROW_FILE, parts.vlm.get_input_embeddings().embedding_dim)
    if own_row is None:
        seg_row, head_row = vocabulary.seg_rows(parts.vlm, seg_token_id)
        if not is_plain and not vocabulary.holds(seg_token_id):
            logger.warning(
                "%s: neither %s nor a <SEG> row in the adapter; using the base model's row", folder, SEG_ROW_FILE
            )
    config.projector_hidden_size = projector_hidden_size(
        paths[0],
        projector,
        parts.vlm.config.text_config.hidden_size,
        parts.sam.config.prompt_encoder_config.hidden_size,
        config.projector_hidden_size,
    )
    with_adapter = None if to_train else lambda vlm: vlm
    if adapter:
        with_adapter = partial(put_adapter, config=adapter[0], state=adapter[1], source=folder / ADAPTER_FOLDER)
    model = assemble(parts, config, dtype, with_adapter, seg_row)
    if own_row is None:
        _use_row_of_adapter(model, head_row)
    model.projector.load_state_dict(match_part(model.projector, projector, paths[0]))
    mask_decoder = model.segmenter.sam.mask_decoder
    mask_decoder.load_state_dict(match_part(mask_decoder, decoder, paths[1]))
    return model


def part_files(folder: Path, config: ModelConfig) -> tuple[Path, Path]:
    """The files of projector and mask decoder in a model directory."""
    if config.is_merged:
        return folder / MERGED_PROJECTOR_FILE, folder / MERGED_DECODER_FILE
    return folder / PROJECTOR_FILE, folder / DECODER_FILE


def check_seg_token(folder: Path, config: ModelConfig, seg_token_id: int) -> None:
    """Refuse a directory whose configuration says another id for `<SEG>` than its tokenizer.

    Raises:
        SatlisaError: it does.
    """
    if config.seg_token_id not in (None, seg_token_id):
        raise SatlisaError(
            f"{folder}: {CONFIG_FILE} says {config.seg_token} is token {config.seg_token_id}, its tokenizer "
            f"{seg_token_id}; the files belong to different models"
        )


def load_tokenizer(model_dir: Path) -> Any | None:
    """The tokenizer of a model directory, or None to use the base model's."""
    folder = model_dir / TOKENIZER_FOLDER
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
    folder = existing_place(str(model_dir))
    if folder is None or not folder.is_dir():
        if folder is not None or str(model_dir).startswith((".", "/", "~")) or str(model_dir).count("/") != 1:
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
    config = read_config(folder)
    vlm = "config.json" if config.is_merged else ADAPTER_FOLDER
    required = [CONFIG_FILE, vlm, *(path.name for path in part_files(folder, config))]
    missing = [name for name in required if not (folder / name).exists()]
    if missing:
        found = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
        raise SatlisaError(f"{setting}{folder}: not a model directory, {', '.join(missing)} missing (found: {found})")
    if config.is_merged and (folder / ADAPTER_FOLDER).exists():
        raise SatlisaError(
            f"{setting}{folder}: {CONFIG_FILE} says that LoRA is merged into the VLM (vlm_model_id '.'), yet there is "
            f"{ADAPTER_FOLDER}; the files belong to different models"
        )
    _check_files(folder, config)
    return folder


def read_config(folder: Path) -> ModelConfig:
    """The configuration of a folder that may be a model directory; the default one where it has none."""
    if not os.path.lexists(folder / CONFIG_FILE):
        return ModelConfig()
    check_file(folder / CONFIG_FILE)
    return ModelConfig.from_json(folder / CONFIG_FILE)


def _check_files(folder: Path, config: ModelConfig) -> None:
    """Refuse what cannot be read, before anything is."""
    for path in (*part_files(folder, config), folder / SEG_ROW_FILE):
        if path.name != SEG_ROW_FILE or os.path.lexists(path):
            check_file(path, MOST_TENSORS)
    for name in (ADAPTER_FOLDER, TOKENIZER_FOLDER):
        if (folder / name).is_dir():
            check_folder(folder / name)


def _use_row_of_adapter(model: SatLisa, head_row: Tensor) -> None:
    """Separate the `<SEG>` rows of input and output where the adapter has two, or LoRA on the embedding."""
    embedding = model.qwen.get_input_embeddings()
    with torch.no_grad():
        if hasattr(embedding, "base_layer"):
            model.seg_row.copy_(embedding(torch.tensor(model.seg_token_id)))
        if not torch.equal(head_row, model.seg_row):
            model.seg_head_row = head_row


def fingerprint_model(model_dir: Path) -> str:
    """12 hex digits that change with a model's files; not with the logs and checkpoints of its training.

    A VLM in the directory counts by samples of its contents.
    """
    config = read_config(model_dir)
    adapter, tokenizer = f"{ADAPTER_FOLDER}/**/*", f"{TOKENIZER_FOLDER}/**/*"
    parts = (path.name for path in part_files(model_dir, config))
    files = (CONFIG_FILE, adapter, *parts, tokenizer, SEG_ROW_FILE)
    found = fingerprint_files(model_dir, files, complete=True)
    if config.brings_vlm:
        vlm = fingerprint_files(model_dir / config.vlm_model_id, _OF_A_VLM)
        found = hashlib.sha256(f"{found} {vlm}".encode()).hexdigest()
    return found[:12]
