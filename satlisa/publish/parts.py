"""The parts of a model directory that are published, without what names places of this machine."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from satlisa.config import BASE_OF_OWN_VLM, MERGED_FOLDER, ModelConfig
from satlisa.data.mixing import parse_datasets
from satlisa.errors import SatlisaError
from satlisa.pretrained.base_models import model_source
from satlisa.pretrained.model_directory import (
    ADAPTER_FOLDER,
    CONFIG_FILE,
    DECODER_FILE,
    FILES_OF_A_MODEL,
    PROJECTOR_FILE,
    SEG_ROW_FILE,
    TOKENIZER_FOLDER,
)
from satlisa.pretrained.tensor_files import MOST_TOKENIZER, read_json
from satlisa.publish.local_paths import Files, find_local_path
from satlisa.runtime.locations import existing_place, is_hub_id

CURVE_FILE = "loss_curve.png"
SUMMARY_FILE = "train_summary.json"
HUB_CONFIG = "config.json"
EVAL_RESULTS, EXAMPLE = ".eval_results/satlisa-", "images/example_"  # how our files begin
_WEIGHTS = [str(Path(name).with_suffix(".safetensors")) for name in (PROJECTOR_FILE, DECODER_FILE)]
_OWN = [PROJECTOR_FILE, DECODER_FILE, *_WEIGHTS, SEG_ROW_FILE, CURVE_FILE]
_OF_TRANSFORMERS = [HUB_CONFIG, "generation_config.json", "model.safetensors.index.json", "model*.safetensors"]
_OF_TRANSFORMERS += ["processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"]
_OF_TRANSFORMERS += ["chat_template.json*", "chat_template.jinja", "tokenizer*.json", "tokenizer.model", "vocab.*"]
_OF_TRANSFORMERS += ["merges.txt", "added_tokens.json", "special_tokens_map.json"]


@dataclass(frozen=True)
class Names:
    """What the hub calls the models and datasets of a model directory; "" where its own word stands."""

    vlm_model: str = ""
    sam_model: str = ""
    dataset: str = ""


@dataclass(frozen=True)
class Model:
    """A model directory and the names under which others find what it needs.

    Attributes:
        config: with hub ids in place of folders of this machine; `dataset` is "" where it was one.
        vlm: id of the VLM, also where a merged copy of it lies in the directory; "" if then nothing tells it.
        datasets: hub ids of the training datasets.
        local_dataset: the name of a training dataset that is not on the hub, without its place; "" where all are.
        summary: of train_summary.json, {} without one.
    """

    folder: Path
    config: ModelConfig
    vlm: str
    datasets: tuple[str, ...]
    local_dataset: str
    summary: Mapping[str, Any]

    @property
    def vlm_folder(self) -> Path | None:
        """The folder of a VLM that lies in the directory: merged, "." without an adapter beside it."""
        return self.folder / self.config.vlm_model_id if _is_inside(self.config.vlm_model_id) else None

    @property
    def is_merged(self) -> bool:
        """Whether the directory itself is the VLM, without an adapter."""
        return self.vlm_folder == self.folder

    @property
    def is_demo(self) -> bool:
        """Whether it needs models that come with the package."""
        return any(name.startswith("demo:") for name in (self.config.vlm_model_id, self.config.sam_model_id))

    @property
    def base_models(self) -> list[str]:
        """Hub ids of the base models, that of the VLM first."""
        return [name for name in (self.vlm, self.config.sam_model_id) if is_hub_id(name)]


def _is_inside(model_id: str) -> bool:
    return model_id == "." or model_id.startswith("./")


def _name(known: Any) -> str:
    """What model_config.json says of the VLM from which its own was made; "" where that is no name."""
    return known if isinstance(known, str) and (is_hub_id(known) or known.startswith("demo:")) else ""


def read_model(folder: Path, names: Names) -> Model:
    """A model directory under its public names.

    Raises:
        SatlisaError: a base model is a folder of this machine and no name on the hub was given for it; or one was
            given for a base model that has another.
    """
    config = ModelConfig.from_json(folder / CONFIG_FILE)
    vlm_id, known = config.vlm_model_id, config.extra.get(BASE_OF_OWN_VLM)
    if _is_inside(vlm_id):
        if ".." in Path(vlm_id).parts:
            raise SatlisaError(f"{folder / CONFIG_FILE}: vlm_model_id: '{vlm_id}' leaves the model directory")
        vlm = _checked("--vlm_model", names.vlm_model) or _name(known)
    else:
        vlm = vlm_id = _public(folder, "vlm_model_id", vlm_id, "--vlm_model", names.vlm_model)
    sam = _public(folder, "sam_model_id", config.sam_model_id, "--sam_model", names.sam_model)
    text, datasets, local = public_datasets(config.dataset, names.dataset)
    if names.dataset and text != names.dataset:
        raise SatlisaError(f"--dataset: {folder / CONFIG_FILE}: dataset is '{text}' already; leave it out")
    summary = read_json(folder / SUMMARY_FILE) if (folder / SUMMARY_FILE).is_file() else {}
    config = replace(config, vlm_model_id=vlm_id, sam_model_id=sam, dataset=text)
    return Model(folder, config, vlm, datasets, local, summary)


def _public(folder: Path, key: str, found: str, option: str, given: str) -> str:
    place = f"{folder / CONFIG_FILE}: {key}"
    is_local = not found.startswith("demo:") and not is_hub_id(found)
    if _checked(option, given) and not is_local and given != found:
        raise SatlisaError(f"{option}: {place} is '{found}' already, and other weights would not fit; leave it out")
    if is_local and not given:
        raise SatlisaError(
            f"{place}: '{found}' is a place on this machine, which nobody else has; say what the same model is "
            f"called on the hub: {option} owner/name"
        )
    if found.startswith("demo:"):
        model_source(found)
    return given or found


def _checked(option: str, given: str) -> str:
    if given and not is_hub_id(given):
        raise SatlisaError(f"{option}: expected a hub id (owner/name), found '{given}'")
    return given


def public_datasets(text: str, given: str = "") -> tuple[str, tuple[str, ...], str]:
    """What model_config.json says of the training datasets, their hub ids, and the name of a local one.

    Args:
        text: as of DATASET, "a,b:0.3".
        given: replaces a `text` that names a folder of this machine.

    Raises:
        SatlisaError: `given` is not of the hub.
    """
    if given and not all(_is_on_hub(name) for name in parse_datasets(given)):
        raise SatlisaError(f"--dataset: expected hub ids (owner/name), found '{given}'")
    parts = parse_datasets(text) if text else {}
    local = [name for name in parts if name != "demo" and not _is_on_hub(name)]
    if local and given:
        return given, tuple(parse_datasets(given)), ""
    if local:
        text = ""
    names = [Path(name.replace("\\", "/")).name for name in local]
    return text, tuple(name for name in parts if name != "demo" and name not in local), " and ".join(names)


def _is_on_hub(name: str) -> bool:
    return is_hub_id(name) and existing_place(name) is None


def model_files(model: Model, repo: str) -> Files:
    """The model's own files, cleaned, and a config.json; nothing else of the directory."""
    files: Files = {CONFIG_FILE: _json(_config(model))}
    places = [(model.folder, _OWN), *([(model.vlm_folder, _OF_TRANSFORMERS)] if model.vlm_folder else [])]
    for place, patterns in places:
        for path in sorted(path for pattern in patterns for path in place.glob(pattern) if path.is_file()):
            files.setdefault(path.relative_to(model.folder).as_posix(), path)
    for part in (ADAPTER_FOLDER, TOKENIZER_FOLDER):
        files |= _folder_files(model.folder / part)
    for name in [name for name in files if name.endswith("config.json") and name != CONFIG_FILE]:
        files[name] = _json(_cleaned(read_json(model.folder / name, MOST_TOKENIZER), model.config.vlm_model_id))
    if not model.is_merged:
        files[f"{ADAPTER_FOLDER}/README.md"] = _about_adapter(model, repo).encode()
        files[HUB_CONFIG] = _json({"model_type": "satlisa", "architectures": ["SatLisa"], "library_name": "satlisa"})
    return files


def _folder_files(folder: Path) -> Files:
    """The files of a part that is a folder, by their names; files of the user in it are left out."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        f"{folder.name}/{name.as_posix()}": path
        for path in found
        if (name := path.relative_to(folder)).parts[0] in FILES_OF_A_MODEL
    }


def _config(model: Model) -> dict[str, Any]:
    """model_config.json as it was, with public names."""
    content, config = read_json(model.folder / CONFIG_FILE), model.config
    public = {"vlm_model_id": config.vlm_model_id, "sam_model_id": config.sam_model_id, "dataset": config.dataset}
    return {**content, **public}


def _cleaned(content: dict[str, Any], base: str) -> dict[str, Any]:
    """Settings of PEFT or transformers: the base model by its id, and no other local place that they were made from."""
    if "base_model_name_or_path" in content:
        content["base_model_name_or_path"] = base
    return {
        key: _cleaned(value, base) if isinstance(value, dict) else value
        for key, value in content.items()
        if not (key.endswith(("name_or_path", "_file", "_dir")) and isinstance(value, str) and find_local_path(value))
    }


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def published_names() -> list[str]:
    """Names of what tells of one model alone, as patterns: none of an earlier model may stay beside a new one."""
    inner = [f"{part}/{name}" for part in (ADAPTER_FOLDER, TOKENIZER_FOLDER) for name in sorted(FILES_OF_A_MODEL)]
    vlm = ["model*.safetensors", "model.safetensors.index.json", f"{MERGED_FOLDER}/*"]
    return [*_OWN, *inner, *vlm, f"{EVAL_RESULTS}*.yaml", f"{EXAMPLE}*.png"]


def left_out(model: Model, files: Files) -> list[str]:
    """The names in the directory that are not published, folders with a slash."""
    kept = {name.split("/")[0] for name in files}
    others = [path for path in sorted(model.folder.iterdir()) if path.name not in kept]
    inner = [path for part in sorted(kept) for path in sorted((model.folder / part).rglob("*")) if path.is_file()]
    names = [path.relative_to(model.folder).as_posix() for path in inner]
    return [path.name + "/" * path.is_dir() for path in others] + [name for name in names if name not in files]


def _about_adapter(model: Model, repo: str) -> str:
    config = model.config
    base = f"base_model: {config.vlm_model_id}\n" if is_hub_id(config.vlm_model_id) else ""
    return f"""---
library_name: peft
{base}tags:
- lora
---

# The LoRA adapter of {repo}

One part of the model one folder up: LoRA of rank {config.lora_r} and alpha {config.lora_alpha} on the language model of
`{config.vlm_model_id}`. The `<SEG>` row of the vocabulary, the projector and the mask decoder lie beside this folder;
`satlisa.load_model("{repo}")` puts all of them together. PEFT alone loads this folder for answers in text.
"""
