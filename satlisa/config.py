"""All settings: what a model is (`model_config.json`) and how a run trains it (environment variables).

A value comes from, in rising order: the default declared here, the preset, `model_config.json` for what describes the
model, the hardware, the environment. Every value is checked where it is declared. Only this file reads the environment.
"""

from __future__ import annotations  # field types stay strings, which _check_type reads

import importlib.util
import json
import os
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from satlisa.errors import SatlisaError

DEFAULT_DATASET = "rahuldshetty/satellite-multitask-omni"
REPOSITORY_CONFIG = Path(__file__).parent.parent / "model_config.json"
EFFECTIVE_BATCH = 16  # DESIGN §3: GRAD_ACCUM = 16 // BATCH_SIZE


@dataclass
class ModelConfig:
    """`model_config.json`: what is needed to rebuild a model around its trained parts."""

    vlm_model_id: str = "Qwen/Qwen3.5-0.8B"
    """Hub id or local folder of the vision-language model; `demo:vlm` is the packaged demo backbone."""
    sam_model_id: str = "Zigeng/SlimSAM-uniform-77"
    """Hub id or local folder of the segmenter; `demo:sam` is the packaged demo backbone."""
    seg_token: str = "<SEG>"
    """The token whose hidden state prompts a mask."""
    seg_token_id: int | None = None
    """Its row of the tied embedding; None until the tokenizer is known."""
    vlm_hidden_size: int = 1024
    """Width of the text model's hidden states; replaced by the loaded model's own."""
    projector_hidden_size: int = 1024
    """Width between the projector's two layers."""
    sam_prompt_size: int = 256
    """Width of SAM's prompt embeddings; replaced by the loaded model's own."""
    lora_r: int = 16
    """Rank of the LoRA layers."""
    lora_alpha: int = 32
    """LoRA's scale is lora_alpha / lora_r."""
    lora_dropout: float = 0.0
    """Dropout in front of LoRA, 0 to below 1."""
    lora_target_modules: list[str] = field(
        default_factory=lambda: [
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "in_proj_qkv",
            "in_proj_z",
            "out_proj",
        ]
    )
    """Names of the language model's Linear layers that carry LoRA: its token mixers."""
    text_loss_weight: float = 1.0
    """Weight of the cross entropy."""
    bce_loss_weight: float = 2.0
    """Weight of the masks' binary cross entropy."""
    dice_loss_weight: float = 0.5
    """Weight of the masks' DICE loss."""
    max_seq_length: int = 512
    """Longest prompt and answer together, in tokens, image tokens included."""
    max_image_tokens: int = 256
    """Most tokens one image takes; it is scaled down to fit."""
    max_instances: int = 32
    """Most `<SEG>` in one answer; the largest instances are kept."""
    dataset: str = DEFAULT_DATASET
    """What the model was trained on; the default of infer_dataset.py."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Keys of the file that are not known here; kept and written back."""

    def __post_init__(self) -> None:
        for item in fields(self):
            _check_type(item.name, getattr(self, item.name), str(item.type), "model_config.json")
        for name in ("projector_hidden_size", "lora_r", "lora_alpha", "max_image_tokens", "max_instances"):
            if getattr(self, name) < 1:
                raise SatlisaError(
                    f"model_config.json: {name}: expected a positive integer, found {getattr(self, name)}"
                )
        if not 0 <= self.lora_dropout < 1:
            raise SatlisaError(f"model_config.json: lora_dropout: expected 0 to below 1, found {self.lora_dropout}")
        if self.max_seq_length <= self.max_image_tokens:
            raise SatlisaError(
                f"model_config.json: max_seq_length: expected more than max_image_tokens ({self.max_image_tokens}), "
                f"found {self.max_seq_length}; no text would fit beside the image"
            )

    @classmethod
    def from_json(cls, path: str | Path) -> ModelConfig:
        """Settings of a file; missing keys and null take the defaults, unknown ones are kept in `extra`.

        Raises:
            SatlisaError: unreadable, not a JSON object, or a value of the wrong type.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SatlisaError(f"{path}: not a readable JSON file ({error})") from error
        if not isinstance(content, dict):
            raise SatlisaError(f"{path}: expected a JSON object, found {type(content).__name__}")
        types = {item.name: str(item.type) for item in fields(cls) if item.name != "extra"}
        values = {k: _lenient(content[k], kind) for k, kind in types.items() if content.get(k) is not None}
        length = values.get("max_seq_length")
        if "max_image_tokens" not in values and isinstance(length, int) and 2 <= length <= cls.max_image_tokens:
            values["max_image_tokens"] = length // 2  # our default would leave no room for text
        try:
            return cls(**values, extra={key: value for key, value in content.items() if key not in types})
        except SatlisaError as error:
            raise SatlisaError(str(error).replace("model_config.json", str(path), 1)) from error

    def to_dict(self) -> dict[str, Any]:
        """All keys as they go into the file, the unknown ones among them."""
        known = asdict(self)
        return {**known.pop("extra"), **known}

    def save(self, path: str | Path) -> None:
        """Write the file whole or not at all."""
        partial = Path(path).with_name(Path(path).name + ".partial")
        partial.write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(partial, path)


def _lenient(value: Any, annotation: str) -> Any:
    """What other programs write for the same thing: 32.0 for 32, a name for a list of one."""
    if annotation in ("int", "int | None") and isinstance(value, float) and value.is_integer():
        return int(value)
    return [value] if annotation == "list[str]" and isinstance(value, str) else value


def _check_type(name: str, value: Any, annotation: str, source: str) -> None:
    """Refuse a value of another type than the field's; an int stands for a float."""
    kinds: dict[str, tuple[type, ...]] = {
        "str": (str,),
        "int": (int,),
        "float": (int, float),
        "int | None": (int, type(None)),
        "list[str]": (list,),
        "dict[str, Any]": (dict,),
        "bool": (bool,),
    }
    wrong = not isinstance(value, kinds[annotation]) or (isinstance(value, bool) and annotation != "bool")
    if annotation == "list[str]" and not wrong:
        wrong = not value or not all(isinstance(entry, str) for entry in value)
    if wrong:
        raise SatlisaError(f"{source}: {name}: expected {annotation}, found {value!r}")


def setting(
    default: Any, meaning: str, *, low: float | None = None, high: float | None = None, choices: str = ""
) -> Any:
    """A field of `TrainConfig`: its default, what it means, and the values that it takes (bounds included)."""
    return field(default=default, metadata={"meaning": meaning, "low": low, "high": high, "choices": choices.split()})


@dataclass(frozen=True)
class TrainConfig:
    """How a run trains. Each field is an environment variable of the same name in capitals."""

    preset: str = setting(
        "full", "`full`: Qwen3.5-0.8B and SlimSAM-77; `demo`: tiny packaged models", choices="full demo"
    )
    dataset: str = setting(DEFAULT_DATASET, "hub id, local folder, or `demo` (synthetic scenes)")
    output_dir: str = setting("./model_dir", "run folder; it becomes a model directory")
    overwrite: bool = setting(False, "1: a run folder that is not empty may be written over")
    batch_size: int = setting(0, "samples per step and device; 0: 1 on T4-class GPUs and CPU, 2 from A10G up", low=0)
    grad_accum: int = setting(0, "steps per optimizer step; 0: 16 // BATCH_SIZE", low=0)
    max_samples: int = setting(0, "use only the first rows of the training split; 0: all", low=0)
    num_workers: int = setting(0, "data loading processes; 0: in the main process, saves memory", low=0)
    epochs: int = setting(2, "passes over the training rows", low=1)
    max_steps: int = setting(0, "stop after this many optimizer steps; 0: no limit", low=0)
    learning_rate: float = setting(2e-4, "peak of the cosine schedule", low=0)
    warmup_ratio: float = setting(0.05, "share of the steps that warm up", low=0, high=1)
    weight_decay: float = setting(0.0, "AdamW's weight decay", low=0)
    max_grad_norm: float = setting(1.0, "gradients are clipped to this norm; 0: not at all", low=0)
    precision: str = setting(
        "auto", "auto: bf16 from compute capability 8.0, fp16 below, fp32 elsewhere", choices="auto fp32 fp16 bf16"
    )
    device: str = setting("auto", "auto: CUDA, then MPS, then CPU", choices="auto cuda cpu mps")
    seed: int = setting(0, "seed of initial weights and shuffling", low=0, high=2**32 - 1)
    val_samples: int = setting(200, "validation rows after each epoch; 0: all", low=0)
    cache_sam: str = setting("", "folder that keeps SAM's image embeddings for later epochs and runs; empty: none")
    cache_sam_gb: float = setting(20.0, "size of that folder, in GB, at which nothing is added to it", low=0)
    grad_checkpoint: bool = setting(False, "1: recompute layers in the backward pass; less memory, more time")
    seg_tasks: str = setting("", "further tasks (comma-separated) whose polygons become masks")
    report_to: str = setting("none", "trackers of accelerate, comma-separated, e.g. tensorboard")
    model_config: str = setting("", "path of a model_config.json; empty: the repository's")
    vlm_model: str = setting("", "hub id or folder instead of model_config.json's vlm_model_id")
    sam_model: str = setting("", "hub id or folder instead of model_config.json's sam_model_id")
    origins: dict[str, str] = field(default_factory=dict, compare=False)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> TrainConfig:
        """Settings from the environment over the preset over the defaults.

        Raises:
            SatlisaError: the first variable whose value is not what it takes, in one line.
        """
        environ = os.environ if environ is None else environ
        given = {item.name: environ[item.name.upper()] for item in settings() if environ.get(item.name.upper())}
        values = {item.name: _parse(item, given[item.name]) for item in settings() if item.name in given}
        preset = PRESETS[values.get("preset", "full")]
        origins = {item.name: "default" for item in settings()}
        origins |= dict.fromkeys(preset, f"preset {values.get('preset', 'full')}")
        origins |= dict.fromkeys(values, "environment")
        return cls(**{**preset, **values}, origins=origins)

    def resolve(self, batch_size: int) -> TrainConfig:
        """The settings with the batch filled in for the hardware at hand (its own `batch_size`)."""
        origins, size = dict(self.origins), self.batch_size
        if size == 0:
            size, origins["batch_size"] = batch_size, "hardware"
        accumulate = self.grad_accum
        if accumulate == 0:
            accumulate, origins["grad_accum"] = max(1, EFFECTIVE_BATCH // size), f"{EFFECTIVE_BATCH} // BATCH_SIZE"
        return replace(self, batch_size=size, grad_accum=accumulate, origins=origins)

    def new_model_config(self) -> ModelConfig:
        """The model to train: `model_config.json` with what the preset and the environment change."""
        path = Path(self.model_config) if self.model_config else REPOSITORY_CONFIG
        base = ModelConfig.from_json(path) if self.model_config or path.exists() else ModelConfig()
        changes: dict[str, Any] = {"dataset": _absolute(self.dataset)}
        if self.preset == "demo":
            changes |= {"vlm_model_id": "demo:vlm", "sam_model_id": "demo:sam", "projector_hidden_size": 256}
        changes |= {"vlm_model_id": _absolute(self.vlm_model)} if self.vlm_model else {}
        changes |= {"sam_model_id": _absolute(self.sam_model)} if self.sam_model else {}
        return replace(base, **changes)

    def seg_task_names(self) -> tuple[str, ...]:
        """`seg_tasks` as names."""
        return tuple(name.strip() for name in self.seg_tasks.split(",") if name.strip())

    def trackers(self) -> list[str]:
        """`report_to` as names.

        Raises:
            SatlisaError: a tracker that `accelerate` does not know, or that is not installed.
        """
        names = [name.strip() for name in self.report_to.split(",") if name.strip()]
        if names == ["none"]:
            return []
        for name in names:
            if name not in TRACKERS:
                raise SatlisaError(f"REPORT_TO: expected none or some of {', '.join(TRACKERS)}, found '{name}'")
            if importlib.util.find_spec(name) is None:
                raise SatlisaError(f"REPORT_TO: {name} is not installed; pip install {name}, or leave it out")
        return names

    def lines(self) -> list[str]:
        """Every value and where it came from, to print at the start of a run."""
        return [
            f"{i.name.upper():<14} {getattr(self, i.name)!s:<42} {self.origins.get(i.name, '')}" for i in settings()
        ]


# Trackers of accelerate, whose packages have the same names.
TRACKERS = ("tensorboard", "wandb", "comet_ml", "aim", "mlflow", "clearml", "dvclive", "swanlab", "trackio")


def _absolute(name: str) -> str:
    """A local folder as a path that holds from anywhere; hub ids and `demo` as they are."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.is_dir() and name != "demo" else name


# What a preset changes; any other dataset or value can be given beside it. The demo counts in steps: that is two passes
# over its own scenes, and as many over a folder of a few hundred rows as it takes to learn something from them.
PRESETS: dict[str, dict[str, Any]] = {
    "full": {},
    "demo": {
        "dataset": "demo",
        "batch_size": 16,
        "grad_accum": 1,
        "epochs": 14,
        "max_steps": 300,
        "learning_rate": 2e-3,
    },
}


def settings() -> list[Any]:
    """The fields of `TrainConfig` that are environment variables, in their order."""
    return [item for item in fields(TrainConfig) if item.metadata]


def _parse(item: Any, text: str) -> Any:
    """The value of one variable, checked against its declaration."""
    name, meta, kind = item.name.upper(), item.metadata, type(item.default)
    expected = {int: "a whole number", float: "a number", bool: "0 or 1", str: "text"}[kind]
    if meta["choices"]:
        expected = "one of " + ", ".join(meta["choices"])
    if meta["low"] is not None:
        expected += f" from {meta['low']}" + (f" to {meta['high']}" if meta["high"] is not None else " up")
    value: Any = text.strip()
    try:
        if kind is bool:
            value = {"0": False, "1": True}[value]
        elif kind is not str:
            value = kind(value)
        valid = value in meta["choices"] if meta["choices"] else True
        if meta["low"] is not None:
            valid = meta["low"] <= value <= (meta["high"] if meta["high"] is not None else float("inf"))
        valid = valid and value != float("inf")
    except (ValueError, KeyError):
        valid = False
    if not valid:
        raise SatlisaError(f"{name}: expected {expected}, found '{text}'")
    return value


def help_text() -> str:
    """All environment variables with defaults and meaning, for `python train.py --help`."""
    lines = [
        f"  {item.name.upper():<14} {_shown(item.default)}\n{'':<17}{item.metadata['meaning']}" for item in settings()
    ]
    demo = ", ".join(f"{name.upper()}={value}" for name, value in PRESETS["demo"].items())
    return "\n".join(["Environment variables, with their defaults:", *lines, f"PRESET=demo sets {demo}."])


def markdown_table() -> str:
    """The same as the README's table; a test holds the two together."""
    rows = [f"| `{item.name.upper()}` | {_shown(item.default)} | {item.metadata['meaning']} |" for item in settings()]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


def _shown(default: Any) -> str:
    if default is MISSING or default == "":
        return "–"
    return str(int(default)) if isinstance(default, bool) else str(default)
