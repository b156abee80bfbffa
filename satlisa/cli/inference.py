"""`python inference.py` and `satlisa-ask`: ask a trained model about one image, a scene or a folder."""

import argparse
import os
import re
import sys
from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import ExifTags, Image, PngImagePlugin

from satlisa.cli.common import CommandParser, called_as, run_command, start_logging
from satlisa.cli.scenes import add_scene_options, is_scene, run_scenes
from satlisa.cli.table import add_table_options, is_table, run_table
from satlisa.config import DEFAULT_MAX_NEW_TOKENS
from satlisa.data.images import open_oriented
from satlisa.errors import SatlisaError, first_line
from satlisa.geometry.overlay import mask_image, overlay
from satlisa.runtime.atomic_files import atomic_replace
from satlisa.runtime.locations import check_writable

if TYPE_CHECKING:
    from satlisa.inference.generation import Answer

_MARK = ("Software", "satlisa: mask of one instance")  # PNG text that tells our masks from files of the user
_LOSSLESS = ("PNG", "TIFF", "BMP", "PPM")  # formats that keep a mask's 0 and 255

PROG = called_as("inference.py", "satlisa-ask")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, 1 where a mask was asked for and none came, 2 for a mistake."""
    parser = _parser(sys.argv[1:] if arguments is None else arguments)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        hint = "; put a pattern in quotes, or the shell gives its files" if os.path.isfile(unknown[-1]) else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    if options.prompt is not None and options.prompts:
        parser.error("--prompt and --prompts were both given; expected one of them")
    start_logging(options.debug)
    return run_command(PROG, partial(_run, options), options.debug)


def _parser(arguments: Sequence[str]) -> CommandParser:
    parser = CommandParser(PROG, "Ask a trained model about one image, a scene, or every image of a folder.")
    parser.add_argument("--model_dir", required=True, help="folder that train.py wrote, or a hub id")
    parser.add_argument(
        "--image",
        required=True,
        type=os.path.expanduser,
        help="image file, or a scene; a folder or a quoted pattern of them",
    )
    parser.add_argument(
        "--prompt",
        required=not any(argument.split("=")[0] == "--prompts" for argument in arguments),
        help='question, e.g. "Segment the buildings"',
    )
    parser.add_argument(
        "--output_mask",
        type=os.path.expanduser,
        metavar="PNG",
        help="write the union of the answer's masks (0/255); of a scene: .tif (0/1)",
    )
    parser.add_argument(
        "--output_instances", type=os.path.expanduser, metavar="DIR", help="write one PNG per mask into this folder"
    )
    parser.add_argument(
        "--overlay", type=os.path.expanduser, metavar="PNG", help="write the image with the masks drawn on it"
    )
    parser.add_argument("--max_new_tokens", type=_positive, default=DEFAULT_MAX_NEW_TOKENS, help="default: %(default)s")
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="0: the most likely answer; above: tokens are drawn (default: 0)"
    )
    parser.add_argument("--seed", type=int, help="of the draws; the same seed gives the same answer")
    parser.add_argument("--device", help="cuda, cuda:1 or 1, cpu or mps (default: best available)")
    add_table_options(parser)
    add_scene_options(parser)
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, found '{text}'")
    return int(text)


def _run(options: argparse.Namespace) -> int:
    if is_table(options):
        return run_table(options)
    if is_scene(options):
        if options.temperature:
            raise SatlisaError("--temperature is for single pictures; the windows of a scene are answered greedily")
        return run_scenes(options)
    _check_outputs(options)
    image = open_oriented(options.image)

    # torch and transformers take seconds; --help and mistakes in the call do not wait for them
    from satlisa.inference.api import load_model, stream_ask

    model = load_model(options.model_dir, options.device)
    found = _print_growing(
        stream_ask(
            model,
            image,
            options.prompt,
            options.max_new_tokens,
            temperature=options.temperature,
            seed=options.seed,
        )
    )
    if not (options.output_mask or options.output_instances or options.overlay):
        return 0
    union = found.union()
    if union is None:
        if options.output_instances:
            _remove_older(Path(options.output_instances), 0)
        print("The answer holds no <SEG>, so there is no mask; nothing was written.", file=sys.stderr)
        return 1
    if options.output_mask:
        _save(mask_image(union), Path(options.output_mask))
    if options.overlay:
        _save(overlay(image.stored(), found.masks), Path(options.overlay), orientation=image.orientation)
    if options.output_instances:
        for number, (mask, score) in enumerate(zip(found.masks, found.scores, strict=True)):
            path = Path(options.output_instances) / f"instance_{number:03d}.png"
            _save(mask_image(mask), path, f"score {score:.2f}", mark=True)
        _remove_older(Path(options.output_instances), found.num_segs)
    return 0


def _print_growing(stream: Generator[str, None, "Answer"]) -> "Answer":
    """Print an answer's text as it grows. After Ctrl-C, what there is of it stays, with its line ended."""
    shown = ""
    try:
        while True:
            text = next(stream)
            print(text[len(shown) :], end="", flush=True)
            shown = text
    except StopIteration as end:
        print(flush=True)
        answer: Answer = end.value
        return answer
    except BaseException:
        if shown:
            print(flush=True)
        raise


def _remove_older(folder: Path, count: int) -> None:
    """Remove the masks that an earlier call with more than `count` instances wrote into the folder."""
    files = folder.iterdir() if folder.is_dir() else ()
    numbered = [(re.fullmatch(r"instance_(\d{3,})\.png", path.name), path) for path in files]
    older = [path for name, path in numbered if name and int(name[1]) >= count and _is_marked(path)]
    for path in older:
        try:
            path.unlink()
        except OSError as error:
            raise SatlisaError(f"{path} is of another answer and cannot be removed ({first_line(error)})") from error
    if older:
        print(f"removed {len(older)} instance_*.png of another answer from {folder}", file=sys.stderr)


def _is_marked(path: Path) -> bool:
    """Whether an earlier call wrote this mask."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            return bool(picture.info.get(_MARK[0]) == _MARK[1])
    except Exception:  # not a PNG, or a broken one: of the user
        return False


def _check_outputs(options: argparse.Namespace) -> None:
    """Refuse outputs that cannot be written, before a model is loaded."""
    taken = {os.path.realpath(options.image): "--image"}
    for option, value in (("--output_mask", options.output_mask), ("--overlay", options.overlay)):
        if not value:
            continue
        path = Path(value)
        if path.is_dir():
            raise SatlisaError(f"{option}: {path} is a folder; name a .png file in it")
        kind = Image.registered_extensions().get(path.suffix.lower())
        if kind not in Image.SAVE:
            raise SatlisaError(f"{option}: {path}: pictures are not written as '{path.suffix}'; name a .png file")
        if option == "--output_mask" and kind not in _LOSSLESS:
            raise SatlisaError(f"{option}: {path}: {kind} does not keep a mask's values 0 and 255; name a .png file")
        if other := taken.get(os.path.realpath(path)):
            raise SatlisaError(f"{option}: {path} is the file of {other} too; name another one")
        taken[os.path.realpath(path)] = option
        check_writable(path.parent, option)
    if options.output_instances:
        check_writable(Path(options.output_instances), "--output_instances")


def _save(picture: Image.Image, path: Path, note: str = "", orientation: int = 1, mark: bool = False) -> None:
    """Write a picture atomically, and say so.

    Args:
        orientation: EXIF's, for viewers to turn it as they turn the photo.
        mark: say in the PNG that it is ours, for a later call to remove.
    """
    kind = Image.registered_extensions()[path.suffix.lower()]
    options: dict[str, Any] = {}
    if mark:
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_text(*_MARK)
    if orientation != 1:
        options["exif"] = Image.Exif()
        options["exif"][ExifTags.Base.Orientation] = orientation
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_replace(path, lambda temporary: picture.save(temporary, kind, **options))
    except (OSError, ValueError) as error:  # ValueError: a format that cannot hold the picture's mode
        raise SatlisaError(f"{path}: cannot be written ({first_line(error)}); name a .png file elsewhere") from error
    print(f"wrote {path} {note}".rstrip(), file=sys.stderr)
