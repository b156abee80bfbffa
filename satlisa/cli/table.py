"""`inference.py --output`: a folder of images and a list of prompts → a table of answers."""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from satlisa.cli.scenes import given_scene_options
from satlisa.data.image_files import find_images
from satlisa.errors import SatlisaError, first_line
from satlisa.inference.coco_results import check_replaceable, dataset_file, write_coco
from satlisa.inference.table import Table, run_file
from satlisa.runtime.locations import check_writable
from satlisa.runtime.signals import Interrupted, raise_on_signal

if TYPE_CHECKING:
    from satlisa.inference.table_rows import Request

logger = logging.getLogger("satlisa")

_SUFFIXES = {"jsonl": ".jsonl", "coco": ".json"}
_SHARED = ("batch_size", "resume")  # options of scenes that a table has too; it always resumes
_PICTURES = ("output_mask", "output_instances", "overlay")


def add_table_options(parser: argparse.ArgumentParser) -> None:
    """The options of tables, in a group of their own."""
    group = parser.add_argument_group(
        "tables", "every image of a folder or of a quoted pattern, e.g. 'photos/**/*.jpg', as a plain picture"
    )
    path: dict[str, Any] = {"type": os.path.expanduser, "metavar": "FILE"}
    group.add_argument("--output", **path, help="write a line per image and prompt; the same command again resumes")
    group.add_argument("--prompts", **path, help="text file with a prompt per line, in place of --prompt")
    group.add_argument("--format", choices=tuple(_SUFFIXES), help="jsonl, or coco: COCO's results beside the .jsonl")


def is_table(options: argparse.Namespace) -> bool:
    """Whether the call is about a table.

    Raises:
        SatlisaError: options that belong to a table come without it, or others with it.
    """
    if not options.output:
        for name in ("prompts", "format"):
            if getattr(options, name):
                raise SatlisaError(f"--{name} is for tables; name the table with --output results.jsonl")
        return False
    others = [f"--{name}" for name in _PICTURES if getattr(options, name)]
    others += [f"--{name}" for name in given_scene_options(options) if name not in _SHARED]
    if others:
        raise SatlisaError(f"{others[0]} does not go with --output, which takes every image as a plain picture")
    return True


def run_table(options: argparse.Namespace) -> int:
    """Answer every prompt about every image; returns the exit code, 1 where not one answer came."""
    output, table_file = _outputs(options)
    prompts = (options.prompt.strip(),) if options.prompt is not None else read_prompts(Path(options.prompts))
    if not prompts[0]:
        raise SatlisaError("--prompt: expected a question, found an empty text")
    images = find_images(options.image, _own_files(options, output, table_file))
    if any(image.lower().endswith((".tif", ".tiff")) for image in images):
        logger.info("--output takes a GeoTIFF as a plain picture, without coordinates; for maps leave --output out")
    try:
        with raise_on_signal():
            return _fill(options, images, prompts, output, table_file)
    except Interrupted as stopped:
        logger.info("%s; run the same command again to resume", stopped)
        return 128 + stopped.number


def read_prompts(path: Path) -> tuple[str, ...]:
    """The prompts of a text file, one a line, UTF-8 with or without byte order mark. Blank lines and repeated prompts
    are left out, which is logged.

    Raises:
        SatlisaError: the file cannot be read, is not UTF-8, or holds no prompt.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise SatlisaError(f"--prompts: {path} cannot be read ({first_line(error)}); check the path") from error
    except UnicodeDecodeError as error:
        raise SatlisaError(f"--prompts: {path} is not UTF-8 ({first_line(error)}); save it as UTF-8") from error
    lines = [line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")]
    prompts = tuple(dict.fromkeys(line for line in lines if line))
    if "\0" in text or not prompts:
        found = "binary data" if "\0" in text else "no prompt"
        raise SatlisaError(f"--prompts: {path}: expected a prompt per line, found {found}; write one line per question")
    blank = lines.count("")
    if repeated := len(lines) - blank - len(prompts):
        logger.warning("%s: repeated prompts, asked once: %d", path, repeated)
    if blank:
        logger.warning("%s: blank lines, left out: %d", path, blank)
    return prompts


def _outputs(options: argparse.Namespace) -> tuple[Path, Path]:
    """What is named by --output, and the table: the same file, or for COCO's results the .jsonl beside them."""
    output, suffix = Path(options.output), _SUFFIXES[options.format or "jsonl"]
    if output.is_dir():
        raise SatlisaError(f"--output: {output} is a folder; name a {suffix} file in it")
    if output.suffix.lower() != suffix:
        hint = "; COCO's results need --format coco" if output.suffix.lower() == ".json" else ""
        raise SatlisaError(f"--output: expected a name that ends in {suffix}, found {output.name}{hint}")
    check_writable(output.parent, "--output")
    return output, output.with_suffix(".jsonl") if options.format == "coco" else output


def _own_files(options: argparse.Namespace, output: Path, table_file: Path) -> list[Path]:
    """Files that are no image, even where --image finds them."""
    prompts = [Path(options.prompts)] if options.prompts else []
    if any(os.path.realpath(path) == os.path.realpath(other) for path in prompts for other in (output, table_file)):
        raise SatlisaError(f"--output: {options.output} is the file of --prompts too; name another one")
    return [output, table_file, run_file(table_file), dataset_file(output), *prompts]


def _fill(
    options: argparse.Namespace, images: list[str], prompts: tuple[str, ...], output: Path, table_file: Path
) -> int:
    # torch and transformers take seconds; mistakes in the call do not wait for them
    from satlisa.inference.decoding import Sampling
    from satlisa.inference.table_rows import Request
    from satlisa.pretrained.model_directory import find_model_dir, fingerprint_model

    size = 8 if options.batch_size is None else options.batch_size
    if size < 1:
        raise SatlisaError(f"--batch_size: expected at least 1, found {size}")
    request = Request(prompts, options.max_new_tokens, Sampling(options.temperature, options.seed), size)
    if options.format == "coco":
        check_replaceable(output)
    identity = {
        "files of --model_dir": fingerprint_model(find_model_dir(options.model_dir)),
        "--image": str(Path(options.image)),
        "prompts": list(prompts),
        **{f"--{name}": getattr(options, name) for name in ("max_new_tokens", "temperature", "seed")},
    }
    with Table(table_file, identity) as table:
        table.check_unchanged(images, prompts)
        _add_rows(options, table, images, request)
        return _finish(options, table, output, prompts)


def _add_rows(options: argparse.Namespace, table: Table, images: list[str], request: "Request") -> None:
    total = len(images) * len(request.prompts)
    before = sum((image, prompt) in table.done for image in images for prompt in request.prompts)
    if before == total:
        return
    from satlisa.inference.api import load_model
    from satlisa.inference.table_rows import make_rows

    model = load_model(options.model_dir, options.device)
    count = before  # a bar that is not shown does not count
    with logging_redirect_tqdm(), tqdm(total=total, initial=before, unit="answer", disable=None) as bar:
        try:
            for rows in make_rows(model, images, request, table.done):
                table.add(rows)
                count += len(rows)
                bar.update(len(rows))
        except Interrupted as stopped:
            stopped.progress = f"after {count} of {total} answers"
            raise


def _finish(options: argparse.Namespace, table: Table, output: Path, prompts: tuple[str, ...]) -> int:
    """Write COCO's files where they are asked for, and say what there is."""
    failed = len(table.done) - table.num_answered
    print(f"{table.path} holds {table.num_answered} answers and {failed} errors", file=sys.stderr)
    if options.format == "coco":
        masks = write_coco(table.path, prompts, output)
        print(f"wrote {output}: {masks} masks, and {dataset_file(output)}: images and categories", file=sys.stderr)
        if not masks:
            print(f"No answer holds a <SEG>: {output} is an empty list, which loadRes refuses.", file=sys.stderr)
    if failed:
        print(f"The first error: {table.first_error}. To ask again, remove lines with an error.", file=sys.stderr)
    if not table.num_answered:
        print("No image could be answered.", file=sys.stderr)
    return 0 if table.num_answered else 1
