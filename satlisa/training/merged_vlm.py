"""The VLM of a run that brings its own: that of INIT_FROM with LoRA merged into it (MERGE_INIT), or a copy of one that
lies in the model directory of INIT_FROM.

It is written beside its place and loaded from there. It takes its place once everything is loaded, so that a start that
fails leaves an earlier model as it is.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from satlisa.config import MERGED_FOLDER, ModelConfig
from satlisa.errors import SatlisaError
from satlisa.pretrained.base_models import resolve_ids
from satlisa.pretrained.merging import write_vlm
from satlisa.pretrained.model_directory import find_model_dir, invalidate_model, is_of_vlm, read_config
from satlisa.runtime.atomic_files import atomic_replace
from satlisa.runtime.locations import existing_folder, writing_to
from satlisa.runtime.processes import ProcessGroup
from satlisa.training.fault_tolerance.resume import STAGED_VLM, Start
from satlisa.training.settings import TrainConfig

logger = logging.getLogger(__name__)


@contextmanager
def vlm_of_run(
    settings: TrainConfig, config: ModelConfig, start: Start, processes: ProcessGroup, dtype: torch.dtype
) -> Iterator[Path | None]:
    """The folder of the run's own VLM, in all processes; None where it has none. `install_vlm` keeps a new one.

    Args:
        dtype: in which the run computes. Where that is float32, the VLM is merged to float32, else as it is stored.

    Raises:
        SatlisaError: it cannot be made, or is gone.
    """
    folder = Path(settings.output_dir)
    if not settings.init_from or config.vlm_model_id != f"./{MERGED_FOLDER}":
        yield None
    elif not start.is_new:
        if not (folder / MERGED_FOLDER).is_dir():
            raise SatlisaError(
                f"OUTPUT_DIR: {folder / MERGED_FOLDER} is not there, the VLM that this run trains on; copy it back, or "
                "start over with RESUME=never OVERWRITE=1"
            )
        yield folder / MERGED_FOLDER
    else:
        try:
            processes.on_main_process(partial(_write, settings, folder / STAGED_VLM, dtype))
            yield folder / STAGED_VLM
        finally:
            if processes.is_main:
                shutil.rmtree(folder / STAGED_VLM, ignore_errors=True)


def _write(settings: TrainConfig, staged: Path, dtype: torch.dtype) -> None:
    source = find_model_dir(settings.init_from, "INIT_FROM: ")
    config = read_config(source)
    if settings.vlm_model:  # a copy of its VLM
        named = existing_folder(settings.vlm_model)
        config = replace(config, vlm_model_id=str(named.resolve()) if named else settings.vlm_model)
    else:
        config = resolve_ids(config, source, existing_folder(settings.init_from) is not None)
    is_merging = settings.merge_init and not read_config(source).is_merged
    with writing_to(staged.parent, "OUTPUT_DIR"):
        if staged.exists():
            shutil.rmtree(staged)
        wide = torch.float32 if is_merging and dtype == torch.float32 else None
        write_vlm(source, config, staged, with_adapter=is_merging, dtype=wide)
    how = "the LoRA layers of INIT_FROM are merged into it" if is_merging else "a copy of that of INIT_FROM"
    logger.info("the run has its own VLM, %s: %s", staged.parent / MERGED_FOLDER, how)


def install_vlm(folder: Path) -> None:
    """Put a new VLM in its place, and refuse the model of an earlier run there until this one is saved."""
    if not (folder / STAGED_VLM).exists():
        return
    with writing_to(folder, "OUTPUT_DIR"):
        invalidate_model(folder)
        atomic_replace(folder / MERGED_FOLDER, (folder / STAGED_VLM).rename, ours=is_of_vlm)
