"""A training run from settings to a model directory, in five stages.

set_up ─► open_data ─► find_start ─► build_run ─► run_to_end
machine    samplers     checkpoint    state        epochs, summary
"""

import logging
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from satlisa.model.assemble import assemble, enable_gradient_checkpointing
from satlisa.model.delta_net import describe_kernels
from satlisa.model.satlisa import SatLisa
from satlisa.pretrained.base_models import load_parts
from satlisa.pretrained.model_directory import load_to_train
from satlisa.processing.chat import count_tokens, encode_answer
from satlisa.processing.places import describe_places
from satlisa.runtime.fingerprint import Identity
from satlisa.runtime.hardware import Hardware, detect, dtype_name
from satlisa.runtime.locations import writing_to
from satlisa.runtime.lock import exclusive_lock
from satlisa.runtime.processes import ProcessGroup
from satlisa.runtime.sharding import check_sharding
from satlisa.runtime.signals import Stopped, StopRequest, note_signals
from satlisa.training.fault_tolerance.checkpoint_files import Checkpoint, read_checkpoint
from satlisa.training.fault_tolerance.checkpointing import restore_state
from satlisa.training.fault_tolerance.resume import Start, choose_start, prepare_folder
from satlisa.training.fault_tolerance.run_identity import extends, identify
from satlisa.training.loader import RowEncoder, StepLoader
from satlisa.training.log import TrainLog
from satlisa.training.merged_vlm import install_vlm, vlm_of_run
from satlisa.training.optimizer import continue_schedule, make_optimizer
from satlisa.training.settings import TrainConfig
from satlisa.training.splits import Data, open_data
from satlisa.training.state import Run
from satlisa.training.summary import summarize
from satlisa.training.trainer import fit

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setup:
    """Hardware and processes of a run, and its settings with the batch size filled in for that hardware."""

    settings: TrainConfig
    hardware: Hardware
    accelerator: Accelerator
    processes: ProcessGroup


def train(settings: TrainConfig) -> Path:
    """Start a run with these settings, or resume the one in its folder; returns the run folder.

    The folder is a model directory after each complete epoch. On SIGTERM or Ctrl-C the run finishes its step, writes a
    checkpoint, says so and returns.

    Raises:
        SatlisaError: data, models, hardware or a folder that cannot be used.
    """
    with note_signals() as stop_request, ExitStack() as locks:
        setup = set_up(settings)
        data = open_data(setup.settings, setup.processes.is_main)
        identity, start = find_start(setup, data, locks)
        if start.is_finished:
            logger.info(
                "the run in %s is finished, nothing is left to do; a larger EPOCHS or MAX_STEPS trains it on, "
                "INIT_FROM=%s in another OUTPUT_DIR starts a new run from its model, OVERWRITE=1 starts over",
                settings.output_dir,
                settings.output_dir,
            )
            return Path(settings.output_dir)
        run = build_run(setup, data, identity, start, stop_request)
        run_to_end(run, setup.hardware)
        return run.folder


def set_up(settings: TrainConfig) -> Setup:
    """Detect the hardware, join the processes, seed the random generators, log the settings."""
    hardware = detect(settings.device, settings.precision)
    settings = settings.resolve(hardware.batch_size)
    accelerator = Accelerator(
        mixed_precision="no",  # the model has its own autocast, and the run its loss scaling
        cpu=settings.device == "cpu",
        log_with=settings.trackers() or None,
        project_dir=settings.output_dir,
    )
    check_sharding(accelerator, hardware.dtype)
    processes = ProcessGroup.of(accelerator)
    logger.info("%s, %s\n%s", hardware.name, dtype_name(hardware.dtype), "\n".join(settings.lines()))
    logger.info("%s", describe_kernels(hardware.device, hardware.dtype))
    set_seed(settings.seed)
    return Setup(settings, hardware, accelerator, processes)


def find_start(setup: Setup, data: Data, locks: ExitStack) -> tuple[Identity, Start]:
    """Lock the run folder until `locks` is closed, and find out whether a run in it can be resumed.

    Returns:
        What must match for that, and where the run starts; the same in every process.
    """
    settings, folder = setup.settings, Path(setup.settings.output_dir)
    on_main_process = setup.processes.on_main_process
    identity = on_main_process(partial(identify, settings, data.config, data.train))

    def lock_and_choose() -> Start:
        locks.enter_context(exclusive_lock(folder, "OUTPUT_DIR"))
        return choose_start(settings, identity)

    start = on_main_process(lock_and_choose)
    if start.checkpoint and not all(setup.processes.gather([start.checkpoint.is_dir()])):
        raise SatlisaError(f"OUTPUT_DIR: {folder} must be visible to all machines to resume the run in it")
    return identity, start


def build_run(setup: Setup, data: Data, identity: Identity, start: Start, stop_request: StopRequest) -> Run:
    """Load the models, build the state of the run, and restore it where the run is resumed."""
    settings, dtype, processes = setup.settings, setup.hardware.dtype, setup.processes
    with vlm_of_run(settings, data.config, start, processes, dtype) as vlm:
        model = _new_model(settings, data.config, dtype, vlm).to(setup.accelerator.device).train()
        checkpoint = read_checkpoint(start.checkpoint) if start.checkpoint else None
        step_size = checkpoint.state["step_size"] if checkpoint else 0
        run = _make_run(setup, data, identity, stop_request, model, step_size)
        if processes.is_main:
            _log_lengths(data, model)
            _log_places(data, model)
        processes.barrier()  # until all have loaded what is renamed now
        processes.on_main_process(partial(prepare_folder, settings, identity, start))
        processes.on_main_process(partial(install_vlm, Path(settings.output_dir)))
    if settings.trackers():
        setup.accelerator.init_trackers("logs", config=settings.values())
    if checkpoint and start.checkpoint:
        resume_from(run, checkpoint, start.checkpoint)
        if extends(checkpoint.state["identity"], identity):
            rates = continue_schedule(run.optimizer, run.scheduler)
            logger.info("the learning rate is that of a run planned for %d steps: %.3g", run.total_steps, rates[0])
    elif setup.processes.is_main:
        with writing_to(run.folder, "OUTPUT_DIR"):
            run.log.begin()
    return run


def _new_model(settings: TrainConfig, config: ModelConfig, dtype: torch.dtype, vlm: Path | None) -> SatLisa:
    """The model that a run starts from, on the CPU; with the run's own VLM, where it has one."""
    if settings.init_from:
        return load_to_train(settings.init_from, config, dtype, vlm, fresh=settings.merge_init)
    return assemble(load_parts(config, dtype), config, dtype)


def _log_lengths(data: Data, model: SatLisa) -> None:
    """Say how many of the text rows looked at will be cut, if their images take as many tokens as they may."""
    most, image = data.config.max_seq_length, data.config.max_image_tokens
    rows = [turns for found in data.surveys for turns in found.conversations]
    too_long = sum(count_tokens(model.processor, turns, image) > most for turns in rows)
    if too_long:
        logger.warning(
            "train split: up to %d of the %d text rows looked at are longer than max_seq_length %d; the ends of their "
            "answers are cut, not their questions",
            too_long,
            len(rows),
            most,
        )


def _log_places(data: Data, model: SatLisa) -> None:
    """Say how many of the rows looked at will say less than `instance_places`, if their images are as large as they may
    be."""
    config, processor = data.config, model.processor
    rows = [row for found in data.surveys for row in found.instances]
    if config.instance_places == "none" or not rows:
        return
    too_long = 0
    for turns, regions in rows:
        places = describe_places(regions[: config.max_instances], config.instance_places)
        added = len(encode_answer(processor.tokenizer, "", len(places), 0, places)) - 1
        too_long += count_tokens(processor, turns, config.max_image_tokens) + added > config.max_seq_length
    logger.info(
        "train split: up to %d of the %d rows looked at with several objects say less of each than its %s, to fit "
        "max_seq_length %d",
        too_long,
        len(rows),
        config.instance_places,
        config.max_seq_length,
    )


def _make_run(
    setup: Setup, data: Data, identity: Identity, stop_request: StopRequest, model: SatLisa, step_size: int
) -> Run:
    """Model, optimizer and loaders on the accelerator.

    `step_size`: rows of a step of a resumed run, which keeps it; 0: what the settings and the processes give.
    """
    settings, accelerator = setup.settings, setup.accelerator
    if settings.cache_sam:
        model.segmenter.open_cache(settings.cache_sam, int(settings.cache_sam_gb * 1e9), model.compute_dtype)
    if settings.cache_memory_gb and accelerator.is_fsdp2:
        logger.info("CACHE_MEMORY_GB is not used: with FSDP all processes have to run the sharded encoders together")
    elif settings.cache_memory_gb:
        model.keep_in_memory(int(settings.cache_memory_gb * 1e9))
    if settings.grad_checkpoint:
        enable_gradient_checkpointing(model.qwen.model.language_model)
    encoder = RowEncoder(
        model.processor, model.segmenter.inputs, model.config, model.config.seg_tasks, data.fractions()
    )
    val_encoder = replace(encoder, fractions=data.fractions(data.validation))
    make_loader = partial(
        StepLoader,
        encoder=encoder,
        batch_size=settings.batch_size,
        rank=setup.processes.rank,
        world=setup.processes.size,
        num_workers=settings.num_workers,
    )
    together = settings.batch_size * setup.processes.size
    train_loader = make_loader(
        data.train, step_size=step_size or together * settings.grad_accum, mask_loss_per=settings.mask_loss_per
    )
    steps = settings.epochs * len(train_loader)
    total_steps = min(steps, settings.max_steps) if settings.max_steps else steps
    optimizer, scheduler = make_optimizer(model, settings, total_steps, sharded=accelerator.is_fsdp2)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    return Run(
        settings=settings,
        accelerator=accelerator,
        processes=setup.processes,
        stop_request=stop_request,
        identity=identity,
        model=model,
        wrapped=wrapped,
        optimizer=optimizer,
        scheduler=scheduler,
        scaler=torch.amp.GradScaler(model.device.type, enabled=model.compute_dtype == torch.float16),
        train_loader=train_loader,
        val_loader=make_loader(data.validation, encoder=val_encoder, step_size=together),
        total_steps=total_steps,
        log=TrainLog(Path(settings.output_dir)),
    )


def resume_from(run: Run, checkpoint: Checkpoint, place: Path) -> None:
    """Restore a run from its checkpoint, and log where it resumes."""
    restore_state(run, checkpoint)
    if not run.processes.is_main:
        return
    before, now = checkpoint.state["num_processes"], run.processes.size
    dtypes = checkpoint.state["dtype"], dtype_name(run.model.compute_dtype)
    if dtypes[0] != dtypes[1]:
        logger.warning("%s before, %s now: the result differs from that of a run in one precision", *dtypes)
    changed = f"; {before} processes before, {now} now, the same {checkpoint.state['step_size']} rows a step"
    with writing_to(run.folder, "OUTPUT_DIR"):
        run.log.begin(place.parent.parent, run.progress.step)
    logger.info(
        "resuming from %s: %d of %d steps, %d rows into epoch %d%s",
        place,
        run.progress.step,
        run.total_steps,
        run.progress.rows_done,
        run.progress.epoch + 1,
        "" if before == now else changed,
    )


def run_to_end(run: Run, hardware: Hardware) -> None:
    """Train, then write `train_summary.json` and the curve; or stop when asked to."""
    try:
        if any(run.processes.sum([bool(run.stop_request.reason)])):
            raise Stopped
        fit(run)
        if run.processes.is_main:
            with writing_to(run.folder, "OUTPUT_DIR"):
                summary = summarize(run, hardware)
            report_omissions(summary)
            logger.info("model directory: %s", run.folder)
    except Stopped:
        logger.info(
            "stopped by %s after %d of %d steps; run the same command %s to resume",
            run.stop_request.reason or "another process",
            run.progress.step,
            run.total_steps,
            "without RESUME=never" if run.settings.resume == "never" else "again",
        )
    run.accelerator.end_training()


def report_omissions(summary: dict[str, Any]) -> None:
    """Warn about every row, instance and step that the run did not use."""
    for split, key in (("train", "skipped_rows"), ("validation", "skipped_validation_rows")):
        for line in summary[key]:
            logger.warning("%s split: %s", split, line)
    if summary["instances_left_out"]:
        logger.warning("train split: %d instances omitted from answers", summary["instances_left_out"])
    if summary["shortened_rows"]:
        logger.warning("train split: %d rows cut, longer than max_seq_length", summary["shortened_rows"])
    if summary["rows_with_fewer_places"]:
        count = summary["rows_with_fewer_places"]
        logger.warning("train split: %d rows say less than instance_places, to fit max_seq_length", count)
    if summary["dropped_steps"]:
        logger.warning("%d steps dropped because of a non-finite loss or gradient", len(summary["dropped_steps"]))
    if summary["overflowed_steps"]:
        logger.warning(
            "%d of %d steps not taken because gradients overflowed in float16; the loss scale ended at %g",
            summary["overflowed_steps"],
            summary["steps"],
            summary["loss_scale"],
        )
