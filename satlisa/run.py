"""From settings to a finished run folder: data, model and accelerator are set up here, `trainer` does the rest."""

import logging
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import set_seed

from satlisa.build import assemble, checkpoint_layers, load_parts
from satlisa.config import TrainConfig, help_text
from satlisa.config import settings as all_settings
from satlisa.dataset import Skips, SplitError, load_rows
from satlisa.errors import SatlisaError
from satlisa.hardware import Hardware, detect, kernels
from satlisa.loader import EncodedRows, make_loader
from satlisa.model import SatLisa
from satlisa.train_log import TrainLog
from satlisa.trainer import Run, fit, make_optimizer

logger = logging.getLogger(__name__)
_PACKAGES = ("torch", "torchvision", "transformers", "peft", "datasets", "accelerate", "numpy", "Pillow")


def main(arguments: Sequence[str] | None = None) -> int:
    """`python train.py`; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments and arguments != ["--debug"]:
        known = arguments in (["--help"], ["-h"])
        print("usage: [VARIABLE=value …] python train.py [--help] [--debug]\n\n" + help_text())
        return 0 if known else 2
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        train(TrainConfig.from_env())
    except SatlisaError as error:
        if arguments:
            raise
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    return 0


def train(settings: TrainConfig) -> Path:
    """Train with these settings; returns the run folder, which is a model directory.

    Raises:
        SatlisaError: data, models, hardware or folder that cannot be used.
    """
    settings.trackers()  # checked before anything is loaded
    hardware = detect(settings.device, settings.precision)
    settings = settings.resolve(hardware.batch_size)
    logger.info("%s, %s\n%s", hardware.name, str(hardware.dtype).removeprefix("torch."), "\n".join(settings.lines()))
    logger.info("%s", kernels(hardware.device))
    folder = Path(settings.output_dir)
    state = PartialState(cpu=settings.device == "cpu")
    if state.is_main_process:  # the others could come late and find its first files
        prepare_folder(settings)
    state.wait_for_everyone()
    set_seed(settings.seed)
    rows = {"train": load_rows(settings.dataset, "train"), "validation": load_validation(settings.dataset)}
    config = settings.new_model_config()
    model = assemble(load_parts(config, hardware.dtype), config, hardware.dtype)
    run = start(settings, model, rows, folder)
    summary = fit(run)
    if run.accelerator.is_main_process:
        run.log.draw()
        run.log.summarize({**describe(settings, hardware), **summary})
        for split, key in (("train", "skipped_rows"), ("validation", "skipped_validation_rows")):
            for line in summary[key]:
                logger.warning("%s split: %s", split, line)
        if summary["instances_left_out"]:
            logger.warning("train split: %d instances left out of answers", summary["instances_left_out"])
        logger.info("model directory: %s", folder)
    run.accelerator.end_training()
    return folder


def load_validation(dataset: str) -> Any:
    """The validation rows; none, and a word about it, where the dataset has no such split."""
    try:
        return load_rows(dataset, "validation")
    except SplitError as error:
        logger.warning("%s: training goes on without validation", error)
        return []


def prepare_folder(settings: TrainConfig) -> None:
    """Make the run folder; refused where it holds something that a run would write over without being asked to."""
    folder = Path(settings.output_dir)
    if folder.is_file():
        raise SatlisaError(f"OUTPUT_DIR: {folder} is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not settings.overwrite:
        raise SatlisaError(f"OUTPUT_DIR: {folder} is not empty; name another folder, or allow it with OVERWRITE=1")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SatlisaError(f"OUTPUT_DIR: {folder} cannot be made ({error})") from error


def start(settings: TrainConfig, model: SatLisa, rows: dict[str, Any], folder: Path) -> Run:
    """Put model, optimizer and loaders on the accelerator."""
    trackers = settings.trackers()
    accelerator = Accelerator(
        # bf16 and fp16 are the model's own autocast; the accelerator adds fp16's gradient scaling.
        mixed_precision="fp16" if model.compute_dtype == torch.float16 else "no",
        cpu=settings.device == "cpu",
        log_with=trackers or None,
        project_dir=str(folder),
    )
    if trackers:
        values = {item.name: getattr(settings, item.name) for item in all_settings()}
        accelerator.init_trackers("logs", config=values)
    model = model.to(accelerator.device).train()
    if settings.cache_sam:
        model.segmenter.open_cache(settings.cache_sam, int(settings.cache_sam_gb * 1e9), model.compute_dtype)
    if settings.grad_checkpoint:
        checkpoint_layers(model.qwen.model.language_model)
    data = {
        split: EncodedRows(
            rows[split], model.processor, model.segmenter, model.config, settings.seg_task_names(), limit
        )
        for split, limit in (("train", settings.max_samples), ("validation", settings.val_samples))
    }
    loader = make_loader(
        data["train"],
        settings.batch_size,
        accumulate=settings.grad_accum,
        num_workers=settings.num_workers,
        shuffle_seed=settings.seed,
    )
    val_loader = make_loader(data["validation"], settings.batch_size, num_workers=settings.num_workers)
    loader, val_loader = accelerator.prepare(loader, val_loader)
    run = Run(settings, accelerator, model, model, None, None, loader, val_loader, TrainLog(folder), Skips(), Skips())
    optimizer, run.scheduler = make_optimizer(model, settings, run.total_steps)
    run.wrapped, run.optimizer = accelerator.prepare(model, optimizer)
    return run


def describe(settings: TrainConfig, hardware: Hardware) -> dict[str, Any]:
    """What `train_summary.json` says of a run beside its results: settings with their origins, machine, versions."""
    return {
        "settings": {
            item.name.upper(): {"value": getattr(settings, item.name), "from": settings.origins.get(item.name, "")}
            for item in all_settings()
        },
        "hardware": {"name": hardware.name, "device": str(hardware.device), "dtype": str(hardware.dtype)},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    }
