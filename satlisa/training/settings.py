"""Training settings, read from environment variables.

Precedence, lowest first: the default declared here, the preset, `model_config.json` for the model's own values, the
hardware, the environment. Declarations include the valid values.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from satlisa.config import DEFAULT_CONFIG, DEFAULT_DATASET, MERGED_FOLDER, ModelConfig, comma_list
from satlisa.data.mixing import parse_datasets
from satlisa.errors import SatlisaError
from satlisa.runtime.locations import existing_folder

EFFECTIVE_BATCH = 16  # GRAD_ACCUM = 16 // BATCH_SIZE (docs/architecture.md#training-defaults)
_MOST = 2**20  # upper bound of BATCH_SIZE and GRAD_ACCUM
_PATHS = ("output_dir", "model_config")  # paths of datasets, models and caches are expanded where they are opened


def setting(
    default: Any, meaning: str, *, low: float | None = None, high: float | None = None, choices: str = ""
) -> Any:
    """Declare a field of `TrainConfig`: default, meaning, and valid values (bounds are inclusive)."""
    return field(default=default, metadata={"meaning": meaning, "low": low, "high": high, "choices": choices.split()})


@dataclass(frozen=True)
class TrainConfig:
    """Training settings. Each field is an environment variable of the same name in capitals."""

    preset: str = setting(
        "full", "`full`: Qwen3.5-0.8B and SlimSAM-77; `demo`: tiny packaged models", choices="full demo"
    )
    dataset: str = setting(
        DEFAULT_DATASET,
        "hub id, local folder, or `demo` (synthetic scenes); several, with shares: `a,b:0.3`",
    )
    output_dir: str = setting("./model_dir", "run folder; it becomes a model directory")
    overwrite: bool = setting(False, "1: allow overwriting a run folder that holds something else or a finished run")
    resume: str = setting("auto", "auto: resume the run in OUTPUT_DIR; never: start over; or a checkpoint's path")
    checkpoint_every: str = setting("10m", "steps (`500`) or minutes (`10m`) between checkpoints; 0: after epochs only")
    keep_checkpoints: int = setting(2, "number of checkpoints to keep, the newest ones", low=1)
    batch_size: int = setting(
        0, "samples per micro-batch and device; 0: 1 on T4-class GPUs and CPU, 2 from A10G up", low=0, high=_MOST
    )
    grad_accum: int = setting(0, "micro-batches per optimizer step; 0: 16 // BATCH_SIZE", low=0, high=_MOST)
    max_samples: int = setting(0, "use only the first rows of the training split; 0: all", low=0)
    max_skip: float = setting(0.05, "share of rows that may be skipped before the run stops", low=0, high=1)
    streaming: bool = setting(False, "1: stream the dataset, if it is larger than memory or disk")
    shuffle_buffer: int = setting(1000, "rows of a stream that are shuffled together", low=1)
    num_workers: int = setting(0, "data loading processes; 0: a thread of the main process, which saves memory", low=0)
    epochs: int = setting(2, "passes over the training rows", low=1)
    max_steps: int = setting(0, "stop after this many optimizer steps; 0: no limit", low=0)
    learning_rate: float = setting(2e-4, "peak of the cosine schedule", low=0)
    projector_lr_factor: float = setting(1.0, "learning rate of the projector, in multiples of LEARNING_RATE", low=0)
    warmup_ratio: float = setting(0.05, "share of the steps used for warm-up", low=0, high=1)
    weight_decay: float = setting(0.0, "weight decay of AdamW", low=0)
    max_grad_norm: float = setting(1.0, "gradient clipping norm; 0: no clipping", low=0)
    mask_loss_per: str = setting(
        "mask",
        "what has the same say in the mask losses: each `mask`, or each `row`, however many masks it has",
        choices="mask row",
    )
    precision: str = setting(
        "auto", "auto: bf16 from compute capability 8.0, fp16 below, fp32 elsewhere", choices="auto fp32 fp16 bf16"
    )
    device: str = setting("auto", "auto: CUDA, then MPS, then CPU", choices="auto cuda cpu mps")
    seed: int = setting(0, "seed of initial weights and shuffling", low=0, high=2**32 - 1)
    val_samples: int = setting(200, "validation rows used after each epoch; 0: all", low=0)
    cache_sam: str = setting("", "folder that keeps SAM's image embeddings for later epochs and runs; empty: none")
    cache_sam_gb: float = setting(20.0, "size in GB at which the folder of CACHE_SAM stops growing", low=0)
    cache_memory_gb: float = setting(
        0.0, "GB of the device's memory for both encoders' outputs, which later rows and epochs reuse; 0: none", low=0
    )
    grad_checkpoint: bool = setting(False, "1: gradient checkpointing; less memory, more time")
    seg_tasks: str = setting("", "further tasks (comma-separated) whose polygons become masks")
    init_from: str = setting(
        "", "model directory or hub id of a trained model to train on from; empty: the base models"
    )
    merge_init: bool = setting(False, "1: merge the LoRA layers of INIT_FROM into its VLM, and train fresh ones on top")
    report_to: str = setting("none", "trackers of accelerate, comma-separated, e.g. tensorboard")
    model_config: str = setting("", "path of a model_config.json; empty: the default one")
    vlm_model: str = setting("", "hub id or folder; replaces vlm_model_id of model_config.json")
    sam_model: str = setting("", "hub id or folder; replaces sam_model_id of model_config.json")
    origins: dict[str, str] = field(default_factory=dict, compare=False)
    batch_size_given: bool = field(default=False, compare=False)  # then it is not halved when memory runs out

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> TrainConfig:
        """Read settings: the environment overrides the preset, which overrides the defaults.

        Raises:
            SatlisaError: names the first variable with an invalid value, in one line.
        """
        environ = os.environ if environ is None else environ
        given = {item.name: environ.get(item.name.upper(), "").strip() for item in variables()}
        given = {name: text for name, text in given.items() if text}
        values = {item.name: _parse(item, given[item.name]) for item in variables() if item.name in given}
        values |= {name: _expand(values[name]) for name in _PATHS if name in values}
        parse_interval(values.get("checkpoint_every", "0"))
        if len(parse_datasets(values.get("dataset", DEFAULT_DATASET))) > 1 and values.get("streaming"):
            raise SatlisaError("STREAMING: several datasets can be mixed, or one can be streamed; set STREAMING=0")
        if values.get("merge_init") and not values.get("init_from"):
            raise SatlisaError(
                "MERGE_INIT: there is no model to merge; name it with INIT_FROM=<model directory or hub id>, or set "
                "MERGE_INIT=0"
            )
        preset = PRESETS[values.get("preset", "full")]
        origins = {item.name: "default" for item in variables()}
        origins |= dict.fromkeys(preset, f"preset {values.get('preset', 'full')}")
        origins |= dict.fromkeys(values, "environment")
        return cls(**{**preset, **values}, origins=origins, batch_size_given=bool(values.get("batch_size")))

    def resolve(self, batch_size: int) -> TrainConfig:
        """Fill in `batch_size`, if 0, with the hardware's, and `grad_accum`, if 0, from EFFECTIVE_BATCH."""
        origins, size = dict(self.origins), self.batch_size
        if size == 0:
            size, origins["batch_size"] = batch_size, "hardware"
        accumulate = self.grad_accum
        if accumulate == 0:
            accumulate, origins["grad_accum"] = max(1, EFFECTIVE_BATCH // size), f"{EFFECTIVE_BATCH} // BATCH_SIZE"
        return replace(self, batch_size=size, grad_accum=accumulate, origins=origins)

    def new_model_config(self) -> ModelConfig:
        """The model's configuration: `model_config.json`, changed by the preset and the environment."""
        base = self._base_config()
        seg_tasks = list(dict.fromkeys([*base.seg_tasks, *self.seg_task_names()]))
        changes: dict[str, Any] = {"dataset": _absolute_each(self.dataset), "seg_tasks": seg_tasks}
        if self.preset == "demo" and not self.init_from:
            changes |= {"vlm_model_id": "demo:vlm", "sam_model_id": "demo:sam", **DEMO_MODEL}
        changes |= {"vlm_model_id": _absolute(self.vlm_model)} if self.vlm_model else {}
        if self.init_from and (self.merge_init or (base.brings_vlm and not self.vlm_model)):
            changes.pop("vlm_model_id", None)  # VLM_MODEL is a copy of the model's own, whose name says more
            base = base.with_own_vlm(f"./{MERGED_FOLDER}")
        elif base.brings_vlm and not self.vlm_model and self.preset != "demo":
            raise SatlisaError(
                f"MODEL_CONFIG: vlm_model_id '{base.vlm_model_id}' lies in a model directory; train on from it with "
                "INIT_FROM=<model directory>, or name a VLM with VLM_MODEL"
            )
        changes |= {"sam_model_id": _absolute(self.sam_model)} if self.sam_model else {}
        return replace(base, **changes)

    def _base_config(self) -> ModelConfig:
        if self.init_from:
            from satlisa.pretrained.model_directory import CONFIG_FILE, find_model_dir  # torch, which --help needs not

            if self.model_config:
                raise SatlisaError(
                    "MODEL_CONFIG: INIT_FROM brings the model's own model_config.json; leave one of the two out "
                    "(MERGE_INIT=1 merges its LoRA layers and trains fresh ones, of the sizes in that file)"
                )
            return ModelConfig.from_json(find_model_dir(self.init_from, "INIT_FROM: ") / CONFIG_FILE)
        path = Path(self.model_config) if self.model_config else DEFAULT_CONFIG
        return ModelConfig.from_json(path) if self.model_config or path.exists() else ModelConfig()

    def seg_task_names(self) -> tuple[str, ...]:
        """`seg_tasks` as names."""
        return comma_list(self.seg_tasks)

    def trackers(self) -> list[str]:
        """`report_to` as names.

        Raises:
            SatlisaError: a tracker is unknown to `accelerate` or not installed.
        """
        names = [*comma_list(self.report_to)]
        if names == ["none"]:
            return []
        for name in names:
            if name not in TRACKERS:
                raise SatlisaError(f"REPORT_TO: expected none or some of {', '.join(TRACKERS)}, found '{name}'")
            if importlib.util.find_spec(name) is None:
                raise SatlisaError(f"REPORT_TO: {name} is not installed; pip install {name}, or leave it out")
        return names

    def values(self) -> dict[str, Any]:
        """Every value by its name."""
        return {item.name: getattr(self, item.name) for item in variables()}

    def lines(self) -> list[str]:
        """All values with their origins, printed at the start of a run."""
        return [
            f"{name.upper():<16} {value!s:<42} {self.origins.get(name, '')}" for name, value in self.values().items()
        ]


# Trackers that accelerate supports; their packages have the same names.
TRACKERS = ("tensorboard", "wandb", "comet_ml", "aim", "mlflow", "clearml", "dvclive", "swanlab", "trackio")


def _expand(name: str) -> str:
    """Expand `~`; shells do not always do it."""
    try:
        return str(Path(name).expanduser()) if name.startswith("~") else name
    except RuntimeError:  # `~user` of an unknown user
        return name


def _absolute(name: str) -> str:
    """A local folder as an absolute path; hub ids and `demo` unchanged."""
    folder = existing_folder(name)
    return str(folder.resolve()) if folder and name != "demo" else name


def _absolute_each(text: str) -> str:
    """The datasets of DATASET with local folders as absolute paths."""
    return ",".join(
        _absolute(name) + ("" if weight is None else f":{weight:g}") for name, weight in parse_datasets(text).items()
    )


# The demo's changes to `model_config.json`. No scene of its own has more than eight objects.
DEMO_MODEL = {"projector_hidden_size": 256, "max_instances": 8}

# The presets' settings; environment variables override them. The demo is limited by steps: about two epochs of its own
# scenes, or enough epochs of a folder with a few hundred rows to learn from it. Two batches of rows of similar length
# pad less than one of 16, which saves a tenth of the time on two cores. A scene is in five rows; the outputs of the
# encoders take 0.3 MB for each.
PRESETS: dict[str, dict[str, Any]] = {
    "full": {},
    "demo": dict(
        dataset="demo",
        batch_size=8,
        grad_accum=2,
        epochs=14,
        max_steps=240,
        learning_rate=1e-3,
        cache_memory_gb=0.25,
    ),
}


def parse_interval(text: str) -> tuple[int, float]:
    """Parse CHECKPOINT_EVERY into (steps, seconds); at least one of them is 0.

    Raises:
        SatlisaError: neither steps nor minutes.
    """
    if re.fullmatch(r"\d{1,9}", text):
        return int(text), 0.0
    if re.fullmatch(r"\d{1,6}(\.\d+)?m", text):
        return 0, float(text[:-1]) * 60
    raise SatlisaError(f"CHECKPOINT_EVERY: expected steps (500), minutes (10m) or 0, found '{text}'")


def variables() -> list[Any]:
    """The fields of `TrainConfig` that are environment variables, in order."""
    return [item for item in fields(TrainConfig) if item.metadata]


def _parse(item: Any, text: str) -> Any:
    """Parse the value of one variable and check it against its declaration."""
    low, high, choices = (item.metadata[key] for key in ("low", "high", "choices"))
    kind: Any = type(item.default)
    expected = {int: "a whole number", float: "a number", bool: "0 or 1", str: "text"}[kind]
    if choices:
        expected = "one of " + ", ".join(choices)
    if low is not None:
        expected += f" from {low}" + (f" to {high}" if high is not None else " up")
    try:
        value = {"0": False, "1": True}[text] if kind is bool else kind(text)
        valid = value in (choices or [value])
        if low is not None:
            valid = low <= value <= (math.inf if high is None else high) and value < 2**63
    except (ValueError, KeyError):
        valid = False
    if not valid:
        raise SatlisaError(f"{item.name.upper()}: expected {expected}, found '{text}'")
    return value


def help_text() -> str:
    """All environment variables with defaults and meaning, for `python train.py --help`."""
    lines = [
        f"  {item.name.upper():<16} {_shown(item.default)}\n{'':<19}{item.metadata['meaning']}" for item in variables()
    ]
    demo = ", ".join(f"{name.upper()}={value}" for name, value in PRESETS["demo"].items())
    model = ", ".join(f"{name} {value}" for name, value in DEMO_MODEL.items())
    last = f"PRESET=demo sets {demo}; in the model's configuration {model}."
    return "\n".join(["Environment variables, with their defaults:", *lines, last])


def markdown_table() -> str:
    """The settings table of docs/training.md; a test keeps them equal."""
    rows = [f"| `{item.name.upper()}` | {_shown(item.default)} | {item.metadata['meaning']} |" for item in variables()]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


def _shown(default: Any) -> str:
    if default is MISSING or default == "":
        return "–"
    return str(int(default)) if isinstance(default, bool) else str(default)
