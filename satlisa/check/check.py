"""Check the rows of a run: read them with all cores, find what would surprise, write CHECK.md."""

import logging
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image
from tokenizers import AddedToken

from satlisa.check import sheet
from satlisa.check.duplicates import find_duplicates
from satlisa.check.facts import Facts, RowReader
from satlisa.check.parts import Part, open_parts
from satlisa.check.problems import Context, find_problems
from satlisa.check.report import IMAGE_FOLDER, REPORT_FILE, TITLE, Report, render
from satlisa.check.workers import count_cores, run_all
from satlisa.config import ModelConfig
from satlisa.data.image_cells import unpack
from satlisa.data.images import open_image
from satlisa.data.rows import read_sample
from satlisa.data.sampler import IndexedSampler
from satlisa.data.survey import Survey
from satlisa.errors import SatlisaError
from satlisa.pretrained.base_models import load_processor, resolve_ids, use_tokenizer
from satlisa.pretrained.model_directory import CONFIG_FILE, find_model_dir, load_tokenizer
from satlisa.processing.chat import limit_image_tokens
from satlisa.runtime.atomic_files import replace_together
from satlisa.runtime.locations import check_writable, existing_folder, writing_to
from satlisa.training.settings import TrainConfig

logger = logging.getLogger(__name__)

OUTPUT_DIR = "check"
"""Default folder of CHECK.md."""

_EVERY = 10.0  # seconds between lines about the progress


def check(settings: TrainConfig, folder: Path, *, estimate: bool = False, processes: int = 0) -> list[str]:
    """Check the rows that a run with these settings reads, and write `folder/CHECK.md` with its pictures.

    Neither the VLM nor SAM is loaded, and no GPU is used.

    Args:
        estimate: where the VLM's tokenizer cannot be had, count tokens with the packaged demo's.
        processes: that read rows; 0: one for each core.

    Returns:
        One line for each problem.

    Raises:
        SatlisaError: settings, datasets or a folder that cannot be used.
    """
    _check_folder(folder)
    config, parts = open_parts(settings)
    processor, config, note = _load_processor(config, settings, estimate)
    reader = RowReader(parts, processor, config, tuple(config.seg_tasks))
    facts = _read_all(reader, processes or count_cores())
    context = Context(parts, settings.max_skip, config.max_seq_length)

    def picture(one: Facts) -> Image.Image:
        return open_image(unpack(_cells(parts, one)["image"]))

    duplicates = find_duplicates(facts, context.split_of, picture)
    problems = find_problems(facts, duplicates, context)
    read = [one for one in facts if parts[one.part].is_read]
    report = Report(
        f"DATASET={settings.dataset}, max_seq_length {config.max_seq_length}, max_instances {config.max_instances}, "
        f"MAX_SKIP {settings.max_skip:g}, SEG_TASKS {', '.join(config.seg_tasks) or 'none'}",
        facts,
        problems,
        duplicates,
        [_show(one, reader) for one in sheet.choose(read, settings.seed)],
        [_summary(number, facts, context) for number, part in enumerate(parts) if part.is_read],
        context,
        note,
    )
    _write(folder, report)
    for line in report.summary:
        logger.info("%s", line)
    return problems


def _check_folder(folder: Path) -> None:
    """Refuse a folder in which a CHECK.md lies that is not ours."""
    check_writable(folder, "--output_dir")
    path = folder / REPORT_FILE
    if path.exists() and (not path.is_file() or not path.read_text("utf-8", "replace").startswith(TITLE)):
        raise SatlisaError(f"--output_dir: {path} is not a report of this command, and is not replaced; name another")


def _load_processor(config: ModelConfig, settings: TrainConfig, estimate: bool) -> tuple[Any, ModelConfig, str]:
    """The processor with `<SEG>` and a limited image size, the model's configuration, and what to say of its counts."""
    note = ""
    try:
        processor = load_processor(_vlm_of(config, settings))
    except SatlisaError as error:
        if not estimate:
            raise
        note = f"{error} Tokens are counted with the tokenizer of the packaged demo, which makes more of them."
        logger.warning("%s", note)
        processor = load_processor("demo:vlm")
    if settings.init_from and not note:
        use_tokenizer(processor, load_tokenizer(find_model_dir(settings.init_from, "INIT_FROM: ")))
    if config.seg_token not in processor.tokenizer.get_vocab():
        processor.tokenizer.add_tokens([AddedToken(config.seg_token, special=True)])
    limit_image_tokens(processor, config.max_image_tokens)
    token_id = int(processor.tokenizer.convert_tokens_to_ids(config.seg_token))
    return processor, replace(config, seg_token_id=token_id), note


def _vlm_of(config: ModelConfig, settings: TrainConfig) -> str:
    """The VLM whose tokens the run will have; one that INIT_FROM brings lies in its folder."""
    if not config.brings_vlm:
        return config.vlm_model_id
    folder = find_model_dir(settings.init_from, "INIT_FROM: ")
    own = ModelConfig.from_json(folder / CONFIG_FILE)
    return resolve_ids(own, folder, existing_folder(settings.init_from) is not None).vlm_model_id


def _read_all(reader: RowReader, processes: int) -> list[Facts]:
    """The facts of all rows, in order."""
    total = sum(len(part.rows) for part in reader.parts)
    facts: list[Facts] = []
    started = said = time.monotonic()
    for one in run_all(reader, _places(reader.parts), _lost, processes):
        facts.append(one)
        if time.monotonic() - said > _EVERY:
            said = time.monotonic()
            logger.info("%s of %s rows checked", f"{len(facts):,}", f"{total:,}")
    seconds = time.monotonic() - started
    logger.info("%s rows read in %.0f s by %d processes", f"{total:,}", seconds, processes)
    return sorted(facts, key=lambda one: (one.part, one.index))


def _places(parts: Sequence[Part]) -> Iterator[tuple[int, int, Any]]:
    """Where the rows are; those of streams with their cells."""
    for number, part in enumerate(parts):
        for ref in part.rows.rows(0, 0):
            yield number, ref.index, None if isinstance(part.rows, IndexedSampler) else ref.fetch()


def _lost(place: tuple[int, int, Any]) -> Facts:
    return Facts(*place[:2], column="image", reason="ended the process that read it: does it fit into memory?")


def _cells(parts: Sequence[Part], one: Facts) -> Any:
    return parts[one.part].rows.row(one.index).fetch()


def _show(one: Facts, reader: RowReader) -> sheet.Shown:
    """A row of the contact sheet, read once more."""
    sample = read_sample(
        _cells(reader.parts, one),
        one.index,
        max_instances=reader.config.max_instances,
        seg_tasks=reader.seg_tasks,
        fractions=reader.parts[one.part].fractions,
    )
    return sheet.draw(one, sample)


def _summary(number: int, facts: Sequence[Facts], context: Context) -> str:
    """The line that training says of its rows, of all rows of a part."""
    own = [one for one in facts if one.part == number]
    kinds = Counter(one.kind for one in own if one.kind)
    several = [one.answers for one in own if one.answers > 1]
    found = Survey(kinds=kinds, answers=several, errors=sum(bool(one.reason) for one in own))
    return f"{context.name(number)}: {found.line()}"


def _write(folder: Path, report: Report) -> None:
    """Write the report and its pictures, both or none; of an earlier report nothing is left."""

    def pictures(place: Path) -> None:
        place.mkdir()
        for number, shown in enumerate(report.shown):
            shown.picture.save(place / f"{number:02d}.jpg", quality=90)

    def text(place: Path) -> None:
        place.write_text(render(report), encoding="utf-8", errors="replace")

    with writing_to(folder, "--output_dir"):
        folder.mkdir(parents=True, exist_ok=True)
        ours = re.compile(r"\d\d\.jpg").fullmatch
        replace_together(
            folder, REPORT_FILE, {IMAGE_FOLDER: pictures, REPORT_FILE: text}, lambda name: bool(ours(name))
        )
