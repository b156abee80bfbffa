"""From settings to a finished run folder: data, model and accelerator are set up here, `trainer` does the rest."""

import logging
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from satlisa.data.dataset import SplitError, load_rows
from satlisa.data.sampler import IndexedOrder, Order
from satlisa.data.streaming import open_stream
from satlisa.errors import SatlisaError, first_line
from satlisa.model.assemble import assemble, enable_gradient_checkpointing
from satlisa.model.delta_net import describe_kernels
from satlisa.model.satlisa import SatLisa
from satlisa.pretrained.base_models import load_parts
from satlisa.runtime.fingerprint import Identity
from satlisa.runtime.hardware import Hardware, detect, dtype_name
from satlisa.runtime.lock import alone_in
from satlisa.runtime.processes import ProcessGroup
from satlisa.runtime.sharding import check_sharding
from satlisa.runtime.signals import Stopped, StopRequest, note_signals
from satlisa.training.fault_tolerance.checkpoint_files import Snapshot, read_snapshot
from satlisa.training.fault_tolerance.checkpointing import restore
from satlisa.training.fault_tolerance.resume import Start, choose_start, prepare
from satlisa.training.fault_tolerance.run_identity import identify
from satlisa.training.loader import Encoder, StepLoader
from satlisa.training.log import TrainLog
from satlisa.training.optimizer import make_optimizer
from satlisa.training.settings import TrainConfig, variables
from satlisa.training.state import Run
from satlisa.training.trainer import fit

logger = logging.getLogger(__name__)

_PACKAGES = ("torch", "torchvision", "transformers", "peft", "datasets", "accelerate", "numpy", "Pillow")


def train(settings: TrainConfig) -> Path:
    """Train with these settings, or go on with the run that is in its folder; returns the run folder.

    That is a model directory once an epoch, or the whole run, is done. A run that is asked to stop (SIGTERM, Ctrl-C)
    finishes its step, writes a checkpoint, says so and returns.

    Raises:
        SatlisaError: data, models, hardware or folder that cannot be used.
    """
    with note_signals() as stop_request, ExitStack() as held:
        hardware = detect(settings.device, settings.precision)
        settings = settings.resolve(hardware.batch_size)
        accelerator = make_accelerator(settings, hardware)
        processes = ProcessGroup.of(accelerator)
        logger.info("%s, %s\n%s", hardware.name, dtype_name(hardware.dtype), "\n".join(settings.lines()))
        logger.info("%s", describe_kernels(hardware.device, hardware.dtype))
        folder = Path(settings.output_dir)
        set_seed(settings.seed)
        orders = {"train": train_order(settings), "validation": validation_order(settings)}
        config = settings.new_model_config()
        identity = processes.on_main_process(partial(identify, settings, config, orders["train"]))
        beginning = processes.on_main_process(partial(begin, held, settings, identity))
        if beginning.finished:
            logger.info(
                "the run in %s is finished, nothing is left to do; train anew with OVERWRITE=1 or in another folder",
                folder,
            )
            return folder
        if beginning.place and not all(processes.gather([beginning.place.is_dir()])):
            raise SatlisaError(f"OUTPUT_DIR: {folder} must be seen by all machines, to go on with the run in it")
        model = assemble(load_parts(config, hardware.dtype), config, hardware.dtype)
        snapshot = read_snapshot(beginning.place) if beginning.place else None
        step_size = snapshot.state["step_size"] if snapshot else 0
        run = start(settings, accelerator, processes, model, orders, identity, stop_request, step_size)
        processes.on_main_process(partial(prepare, settings, identity, beginning))
        if settings.trackers():
            values = {item.name: getattr(settings, item.name) for item in variables()}
            accelerator.init_trackers("logs", config=values)
        if snapshot and beginning.place:
            go_on(run, snapshot, beginning.place)
        elif run.processes.is_main:
            with writing(folder):
                run.log.begin()
        try:
            if any(processes.sum([bool(stop_request.reason)])):
                raise Stopped
            finish(run, hardware, fit(run))
        except Stopped:
            logger.info(
                "stopped by %s after %d of %d steps; run the same command %s to go on",
                stop_request.reason or "another process",
                run.step,
                run.total_steps,
                "without RESUME=never" if settings.resume == "never" else "again",
            )
        run.accelerator.end_training()
    return folder


def make_accelerator(settings: TrainConfig, hardware: Hardware) -> Accelerator:
    """The processes of this run, before anything is loaded."""
    accelerator = Accelerator(
        # bf16 and fp16 are the model's own autocast; the accelerator adds fp16's gradient scaling.
        mixed_precision="fp16" if hardware.dtype == torch.float16 else "no",
        cpu=settings.device == "cpu",
        log_with=settings.trackers() or None,
        project_dir=settings.output_dir,
    )
    check_sharding(accelerator, hardware.dtype)
    return accelerator


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """A folder that cannot be written is told in one line."""
    try:
        yield
    except OSError as error:
        raise SatlisaError(
            f"OUTPUT_DIR: {folder} cannot be written ({first_line(error)}); make room and run the same command again"
        ) from error


def begin(held: ExitStack, settings: TrainConfig, identity: Identity) -> Start:
    """Where to start, in a folder that no other run may write until `held` is left."""
    held.enter_context(alone_in(Path(settings.output_dir), "OUTPUT_DIR"))
    return choose_start(settings, identity)


def go_on(run: Run, snapshot: Snapshot, place: Path) -> None:
    """Put a run where a checkpoint left it, and say from where it goes on."""
    restore(run, snapshot)
    before, now = snapshot.state["num_processes"], run.accelerator.num_processes
    precisions = snapshot.state["dtype"], dtype_name(run.model.compute_dtype)
    if precisions[0] != precisions[1] and run.processes.is_main:
        logger.warning("%s then, %s now: what follows differs from a run in one precision", *precisions)
    changed = (
        ""
        if before == now
        else f"; {before} processes then, {now} now, the same {snapshot.state['step_size']} rows a step"
    )
    if run.processes.is_main:
        with writing(run.folder):
            run.log.begin(place.parent.parent, run.step)
        logger.info(
            "going on from %s: %d of %d steps, %d rows into epoch %d%s",
            place,
            run.step,
            run.total_steps,
            run.rows_done,
            run.epoch + 1,
            changed,
        )


def finish(run: Run, hardware: Hardware, summary: dict[str, Any]) -> None:
    """Draw the curve, write `train_summary.json`, and say what was not used and where the model is."""
    if not run.processes.is_main:
        return
    with writing(run.folder):
        run.log.draw()
        run.log.summarize({**describe(run.settings, hardware), **summary})
    for split, key in (("train", "skipped_rows"), ("validation", "skipped_validation_rows")):
        for line in summary[key]:
            logger.warning("%s split: %s", split, line)
    if summary["instances_left_out"]:
        logger.warning("train split: %d instances left out of answers", summary["instances_left_out"])
    if summary["dropped_steps"]:
        logger.warning("%d steps dropped because of a loss that is no number", len(summary["dropped_steps"]))
    logger.info("model directory: %s", run.folder)


def train_order(settings: TrainConfig) -> Order:
    """The training rows in their order."""
    if settings.streaming:
        return open_stream(settings.dataset, "train", settings.max_samples, settings.shuffle_buffer, settings.seed)
    return IndexedOrder(load_rows(settings.dataset, "train"), settings.max_samples, settings.seed)


def validation_order(settings: TrainConfig) -> Order:
    """The validation rows; none, and a word about it, where the dataset has no such split."""
    try:
        if settings.streaming:
            return open_stream(settings.dataset, "validation", settings.val_samples)
        return IndexedOrder(load_rows(settings.dataset, "validation"), settings.val_samples)
    except SplitError as error:
        logger.warning("%s: training goes on without validation", error)
        return IndexedOrder([])


def start(
    settings: TrainConfig,
    accelerator: Accelerator,
    processes: ProcessGroup,
    model: SatLisa,
    orders: dict[str, Order],
    identity: Identity,
    stop_request: StopRequest,
    step_size: int = 0,
) -> Run:
    """Put model, optimizer and loaders on the accelerator.

    `step_size`: rows of a step, of a run that goes on; 0: as many as the settings and the processes make.
    """
    model = model.to(accelerator.device).train()
    if settings.cache_sam:
        model.segmenter.open_cache(settings.cache_sam, int(settings.cache_sam_gb * 1e9), model.compute_dtype)
    if settings.grad_checkpoint:
        enable_gradient_checkpointing(model.qwen.model.language_model)
    encoder = Encoder(model.processor, model.segmenter.inputs, model.config, settings.seg_task_names())
    make_loader = partial(
        StepLoader,
        encoder=encoder,
        batch_size=settings.batch_size,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        num_workers=settings.num_workers,
    )
    together = settings.batch_size * accelerator.num_processes
    run = Run(
        settings=settings,
        accelerator=accelerator,
        model=model,
        wrapped=model,
        optimizer=None,
        scheduler=None,
        train_loader=make_loader(orders["train"], step_size=step_size or together * settings.grad_accum),
        val_loader=make_loader(orders["validation"], step_size=together),
        log=TrainLog(Path(settings.output_dir)),
        identity=identity,
        processes=processes,
        stop_request=stop_request,
    )
    optimizer, run.scheduler = make_optimizer(model, settings, run.total_steps, sharded=accelerator.is_fsdp2)
    run.wrapped, run.optimizer = accelerator.prepare(model, optimizer)
    return run


def describe(settings: TrainConfig, hardware: Hardware) -> dict[str, Any]:
    """What `train_summary.json` says of a run beside its results: settings with their origins, machine, versions."""
    return {
        "settings": {
            item.name.upper(): {"value": getattr(settings, item.name), "from": settings.origins.get(item.name, "")}
            for item in variables()
        },
        "hardware": {"name": hardware.name, "device": str(hardware.device), "dtype": str(hardware.dtype)},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    }
