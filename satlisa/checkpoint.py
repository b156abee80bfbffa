"""A model directory (DESIGN §4): what `train.py` writes and `load_model` reads.

Weights are safetensors, or `.pt` read with `weights_only=True`: nothing is unpickled that could run code. Checkpoints
of other programs name the same tensors differently; `match_state` finds out which is which, or refuses.
"""

import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer

from satlisa.build import add_seg_token, assemble, load_parts
from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from satlisa.hardware import detect
from satlisa.model import SatLisa

CONFIG_FILE = "model_config.json"
ADAPTER_FOLDER = "vlm_lora"
PROJECTOR_FILE = "seg_projector.pt"
DECODER_FILE = "sam_mask_decoder.pt"
TOKENIZER_FOLDER = "tokenizer"
SEG_ROW_FILE = "seg_token.safetensors"
_REQUIRED = (ADAPTER_FOLDER, PROJECTOR_FILE, DECODER_FILE)

State = dict[str, Tensor]


def save_model(model: SatLisa, model_dir: str | Path) -> None:
    """Write the trained parts of a model, and the settings to rebuild the rest, into `model_dir`.

    Every file is written beside its place and renamed, so that a reader never meets half a file.
    """
    folder = Path(model_dir)
    folder.mkdir(parents=True, exist_ok=True)
    model.vlm.save_pretrained(folder / ADAPTER_FOLDER, save_embedding_layers=False)
    model.processor.tokenizer.save_pretrained(folder / TOKENIZER_FOLDER)
    _save_pt(model.projector.state_dict(), folder / PROJECTOR_FILE)
    _save_pt(model.segmenter.sam.mask_decoder.state_dict(), folder / DECODER_FILE)
    partial = folder / (SEG_ROW_FILE + ".partial")
    save_file({"seg_row": model.seg_row.detach().cpu().contiguous()}, partial)
    os.replace(partial, folder / SEG_ROW_FILE)
    model.config.save(folder / CONFIG_FILE)


def _save_pt(state: State, path: Path) -> None:
    partial = path.with_name(path.name + ".partial")
    torch.save({name: tensor.detach().cpu() for name, tensor in state.items()}, partial)
    os.replace(partial, path)


def load_model(model_dir: str | Path, device: str | torch.device | None = None) -> SatLisa:
    """A trained model, ready to answer.

    Args:
        model_dir: a folder that `train.py` wrote, one in the published layout, or a hub id.
        device: "cuda", "cpu", "mps", …; by default the best one there is.

    Returns:
        The model in eval mode, its precision chosen for the device.

    Raises:
        SatlisaError: a folder that is not a model directory, or weights that do not fit it.
    """
    folder = find_model_dir(model_dir)
    config_file = folder / CONFIG_FILE
    config = ModelConfig.from_json(config_file) if config_file.exists() else ModelConfig()
    hardware = detect(str(device) if device is not None else "auto")
    tokenizer_dir = folder / TOKENIZER_FOLDER
    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_dir)) if tokenizer_dir.is_dir() else None
    parts = load_parts(config, hardware.dtype, tokenizer)
    seg_token_id = add_seg_token(parts.processor.tokenizer, parts.vlm, config.seg_token)
    if config.seg_token_id not in (None, seg_token_id):
        raise SatlisaError(
            f"{folder}: {CONFIG_FILE} says {config.seg_token} is token {config.seg_token_id}, its tokenizer "
            f"{seg_token_id}; the files belong to different models"
        )
    seg_row = _load_seg_row(folder, parts.vlm.get_input_embeddings().weight, seg_token_id)
    projector = _load_pt(folder / PROJECTOR_FILE)
    config.projector_hidden_size = _projector_hidden_size(projector, parts.vlm.config.text_config.hidden_size)
    model = assemble(parts, config, hardware.dtype, adapter=folder / ADAPTER_FOLDER, seg_row=seg_row)
    _fill(model.projector, projector, folder / PROJECTOR_FILE)
    _fill(model.segmenter.sam.mask_decoder, _load_pt(folder / DECODER_FILE), folder / DECODER_FILE)
    return model.to(hardware.device).eval()


def find_model_dir(model_dir: str | Path) -> Path:
    """The local folder of a model directory, downloaded from the hub where the name is a hub id.

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
                f"{model_dir}: neither a local folder nor to be had from the hub "
                f"({str(error).splitlines()[0]}); give a folder that train.py wrote"
            ) from error
    missing = [name for name in _REQUIRED if not (folder / name).exists()]
    if missing:
        found = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
        raise SatlisaError(f"{folder}: not a model directory, {', '.join(missing)} missing (found: {found})")
    return folder


def _load_pt(path: Path) -> State:
    """Tensors of a `.pt` file, out of any wrapper dict; nothing but tensors is ever unpickled."""
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own text recommends to unpickle it all the same
        raise SatlisaError(f"{path}: damaged, or holds more than tensors, which could run code; not loaded") from error
    except Exception as error:  # torch raises zip, OS and runtime errors
        raise SatlisaError(f"{path}: not a readable state dict of tensors ({str(error).splitlines()[0]})") from error
    while isinstance(loaded, Mapping) and not any(isinstance(value, Tensor) for value in loaded.values()):
        inner = [value for value in loaded.values() if isinstance(value, Mapping)]
        if len(inner) != 1:
            raise SatlisaError(f"{path}: expected a state dict, found keys {list(loaded)}")
        loaded = inner[0]
    if not isinstance(loaded, Mapping):
        raise SatlisaError(f"{path}: expected a state dict, found {type(loaded).__name__}")
    return {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}


def _load_seg_row(folder: Path, matrix: Tensor, seg_token_id: int) -> Tensor:
    """The `<SEG>` row: our own file, else the adapter's embedding, else the base matrix (DESIGN §4)."""
    width = matrix.shape[1]
    if (folder / SEG_ROW_FILE).exists():
        row = _load_safetensors(folder / SEG_ROW_FILE).get("seg_row")
        if row is None or row.shape != (width,):
            raise SatlisaError(f"{folder / SEG_ROW_FILE}: expected 'seg_row' of {width} values; from another model?")
        return row
    adapter_file = folder / ADAPTER_FOLDER / "adapter_model.safetensors"
    adapter = _load_safetensors(adapter_file) if adapter_file.exists() else {}
    for name, tensor in adapter.items():
        if re.search(r"embed_tokens|lm_head", name) and "lora_" not in name:
            if tensor.ndim == 2 and tensor.shape[0] > seg_token_id and tensor.shape[1] == width:
                return tensor[seg_token_id].float()
            if "trainable_tokens" in name and tensor.shape == (1, width):
                return tensor[0].float()
    return matrix[seg_token_id].detach().float()


def _load_safetensors(path: Path) -> State:
    try:
        state: State = load_file(path)
        return state
    except (SafetensorError, OSError) as error:
        raise SatlisaError(f"{path}: not a readable safetensors file ({error})") from error


def _projector_hidden_size(state: State, width: int) -> int:
    """Hidden width of a projector, whatever its tensors are called: the rows of the first matrix that takes D."""
    for tensor in state.values():
        if tensor.ndim == 2 and tensor.shape[1] == width:
            return int(tensor.shape[0])
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    raise SatlisaError(f"{PROJECTOR_FILE}: no matrix takes states of width {width}; found {shapes}")


def _fill(module: torch.nn.Module, state: State, path: Path) -> None:
    module.load_state_dict(match_state(module.state_dict(), state, str(path)))


# segment-anything's own names for the mask decoder, as regular expressions and transformers' names.
_SAM_NAMES = (
    (r"^output_upscaling\.0\.", "upscale_conv1."),
    (r"^output_upscaling\.1\.", "upscale_layer_norm."),
    (r"^output_upscaling\.3\.", "upscale_conv2."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"^((?:output_hypernetworks_mlps\.\d+|iou_prediction_head)\.)layers\.0\.", r"\1proj_in."),
    (r"^((?:output_hypernetworks_mlps\.\d+|iou_prediction_head)\.)layers\.2\.", r"\1proj_out."),
    (r"^((?:output_hypernetworks_mlps\.\d+|iou_prediction_head)\.)layers\.1\.", r"\1layers.0."),
)


def match_state(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str) -> State:
    """Give the tensors of a foreign state dict the names that are expected.

    Tried in this order: the names as they are; without a common prefix; translated from segment-anything's; and for
    what is left, the shape and, among tensors of one shape, the order.

    Raises:
        SatlisaError: shapes that do not pair up, or an order that the names contradict; with both lists of names.
    """
    for candidate in _renamings(found):
        if candidate.keys() == expected.keys() and all(candidate[n].shape == t.shape for n, t in expected.items()):
            return candidate
    pools: dict[tuple[int, ...], list[str]] = {}
    for name, tensor in found.items():
        pools.setdefault(tuple(tensor.shape), []).append(name)
    matched: State = {}
    for shape in {tuple(tensor.shape) for tensor in expected.values()}:
        wanted = [name for name, tensor in expected.items() if tuple(tensor.shape) == shape]
        names = pools.pop(shape, [])
        if len(names) != len(wanted) or _numbers_fall(names):
            raise _mismatch(expected, found, source)
        matched.update({target: found[name] for target, name in zip(wanted, names, strict=True)})
    if pools:
        raise _mismatch(expected, found, source)
    return matched


def _renamings(found: Mapping[str, Tensor]) -> list[State]:
    """The state dict under the names worth trying: its own, without its prefix, translated from segment-anything."""
    prefix = ""
    while True:
        heads = {name.removeprefix(prefix).partition(".")[:2] for name in found}
        if len(heads) != 1 or not (head := heads.pop())[1]:
            break
        prefix += "".join(head)
    bare = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    translated: State = {}
    for name, tensor in bare.items():
        for pattern, replacement in _SAM_NAMES:
            name, changed = re.subn(pattern, replacement, name)
            if changed and pattern.startswith("^"):
                break  # layers.1 → layers.0 must not be translated again
        translated[name] = tensor
    return [dict(found), bare, translated]


def _numbers_fall(names: list[str]) -> bool:
    """Whether the numbers inside the names fall along the order, so that name and order disagree."""
    numbers = [[int(digits) for digits in re.findall(r"\d+", name)] for name in names]
    return numbers != sorted(numbers) and len({len(number) for number in numbers}) == 1


def _mismatch(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str) -> SatlisaError:
    def listing(state: Mapping[str, Tensor]) -> str:
        return ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in state.items())

    return SatlisaError(
        f"{source}: cannot tell which tensor is which.\nexpected: {listing(expected)}\nfound: {listing(found)}\n"
        "Rename the tensors to the expected names."
    )
