"""`python -m satlisa.publish --model_dir D --repo owner/name`: a trained model as a repository of the hub."""

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from satlisa.cli.common import CommandParser, run_command, start_logging
from satlisa.config import comma_list
from satlisa.errors import SatlisaError
from satlisa.runtime.locations import check_writable, writing_to

PROG = "python -m satlisa.publish"


def parser() -> CommandParser:
    """The command line."""
    parser = CommandParser(PROG, "Publish a trained model on the Hugging Face hub; docs/publishing.md.")
    add = parser.add_argument
    add("--model_dir", required=True, type=_path, metavar="D", help="folder that train.py wrote")
    add("--repo", required=True, metavar="OWNER/NAME", help="repository on the hub; created where there is none")
    add("--results", type=_path, metavar="FILE", help="results.json of infer_dataset.py: scores and a picture")
    add("--private", action="store_true", help="only you see the repository")
    add("--dry_run", type=_path, metavar="OUT", help="write what would be uploaded into this new folder; no network")
    add("--with_code", action="store_true", help="inference.py and satlisa/ too: the repository answers by itself")
    add("--license", default="", help="id of the hub's list (the base models', apache-2.0, where known; else unknown)")
    add("--language", type=comma_list, default=("en",), help="of the answers, such as en,de (en)")
    add("--vlm_model", default="", metavar="ID", help="hub id of the VLM, if model_config.json names a local folder")
    add("--sam_model", default="", metavar="ID", help="hub id of SAM, if model_config.json names a local folder")
    add("--dataset", default="", metavar="ID", help="hub id of the training dataset, if it was a local folder")
    return parser


def _path(text: str) -> Path:
    return Path(text).expanduser()


def run(options: argparse.Namespace) -> int:
    """Put the repository together, and upload it or write it to the disk."""
    from satlisa.publish.hub import check_account, check_repo, upload  # torch and transformers take seconds
    from satlisa.publish.parts import Names, published_names
    from satlisa.publish.repository import Wishes, put_together

    check_repo(options.repo)
    if options.dry_run:
        _check_new(options.dry_run)
    else:
        check_account()
    _check_model_dir(options.model_dir)
    names = Names(options.vlm_model, options.sam_model, options.dataset)
    wishes = Wishes(options.repo, names, options.license.lower(), options.language, options.results, options.with_code)
    made = put_together(options.model_dir, wishes)
    for note in made.notes:
        print(note)
    size = f"{len(made.files)} files"
    if options.dry_run:
        with writing_to(options.dry_run, "--dry_run"):
            _write_new(made.files, options.dry_run)
        print(f"{options.dry_run}: {size}, as they would be uploaded to {options.repo}; nothing was")
        return 0
    with tempfile.TemporaryDirectory(prefix="satlisa-") as name:
        _write(made.files, Path(name), os.symlink)
        place = upload(Path(name), options.repo, private=options.private, replaced=published_names())
    print(f"{place}: {size} uploaded")
    return 0


def _check_new(folder: Path) -> None:
    check_writable(folder, "--dry_run")
    if folder.is_dir() and any(folder.iterdir()):
        raise SatlisaError(f"--dry_run: {folder} is not empty, and nothing in it is replaced; name a new folder")


def _check_model_dir(folder: Path) -> None:
    from satlisa.pretrained.model_directory import find_model_dir

    if not folder.is_dir():
        raise SatlisaError(f"--model_dir: {folder}: no such folder; give one that train.py wrote")
    find_model_dir(folder)


def _write_new(files: dict[str, Path | bytes], folder: Path) -> None:
    """Write a new folder that is there with all of its files or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".satlisa-", suffix=".partial", dir=folder.parent) as name:
        made = Path(name) / "made"
        made.mkdir()
        _write(files, made, shutil.copyfile)
        if folder.is_dir():
            folder.rmdir()  # empty
        made.rename(folder)


def _write(files: dict[str, Path | bytes], folder: Path, put: Callable[[Path, Path], Any]) -> None:
    """Write files; `put` brings one that exists to its place."""
    for name, content in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            place.write_bytes(content)
        else:
            put(content.resolve(), place)


def main() -> int:
    """The exit code: 0, or 2 for a mistake in what the user gave."""
    options = parser().parse_args()
    start_logging(options.debug)
    return run_command(PROG, partial(run, options), options.debug)
