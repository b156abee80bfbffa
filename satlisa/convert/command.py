"""`python -m satlisa.convert FORMAT … OUT`: a dataset folder from other datasets' formats."""

import argparse
import logging
import re
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

from satlisa.cli.common import CommandParser, run_command, start_logging
from satlisa.config import comma_list
from satlisa.convert.problems import Problems
from satlisa.convert.questions import TASKS, Asking, ask, choose_negatives, find_boxed
from satlisa.convert.splits import Splitting, choose_splits, parse_shares
from satlisa.convert.templates import Templates, read_json
from satlisa.errors import SatlisaError

logger = logging.getLogger("satlisa")

PROG = "python -m satlisa.convert"
FORMATS = {
    "coco": "[SPLIT=]FILE.json … [IMAGES]: COCO's polygons, run lengths, boxes",
    "folders": "FOLDER: one folder per class (EuroSAT, PatternNet)",
    "masks": "IMAGES MASKS --values MAP.json | --instances CLASS: mask images",
    "yolo": "data.yaml: Ultralytics' outlines and boxes",
    "labelme": "FOLDER: labelme's JSON files and images",
    "captions": "FILE.json|FILE.csv IMAGES: RSICD's captions, CSV",
    "vqa": "QUESTIONS.json [ANSWERS.json]|FILE.csv IMAGES: RSVQA, FloodNet, CSV",
    "geo": "RASTERS VECTORS: GeoTIFFs with GeoJSON, GPKG, Shapefiles in any CRS",
    "boxes": "LABELS IMAGES: DOTA's text files, VOC's XML (DIOR)",
}
"""The formats, each read by the module of its name, and what it needs."""


def parser() -> CommandParser:
    """The command line."""
    parser = CommandParser(PROG, "Make a dataset folder from other formats; docs/convert.md shows one command of each.")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "formats:\n" + "\n".join(f"  {name:9} {what}" for name, what in FORMATS.items())
    add = parser.add_argument
    add("format", choices=FORMATS, metavar="FORMAT", help=f"one of {', '.join(FORMATS)}")
    add("inputs", nargs="+", metavar="INPUT", help="files and folders of the format")
    add("output", metavar="OUT", type=Path, help="the new dataset folder")
    add("--split", default="", help="shares of train, validation, test (as the format says, else 0.9,0.05,0.05)")
    add("--group", default="", help="regular expression for the part of an image's name that names its scene")
    add("--seed", type=int, default=0, help="decides splits, wordings and negatives (%(default)s)")
    add("--tasks", type=comma_list, default=TASKS[:4], help=f"of objects: {', '.join(TASKS)} (all but the last)")
    add("--negatives", type=float, default=0.2, help="share of images asked for a class they lack (%(default)s)")
    add("--max_boxes", type=int, default=12, help="most boxes in one answer (%(default)s)")
    add("--templates", type=Path, help="JSON of questions and answers, see templates.json of this package")
    add("--names", type=Path, help='JSON of words for classes, {"AnnualCrop": "annual crop"}')
    add("--source", default="", help="the rows' source (the format)")
    add("--exif", choices=("stored", "upright"), help="grid of annotations of turned images, where sizes do not tell")
    add("--values", type=Path, help='masks: JSON of values, {"1": "building", "#ff0000": "road", "255": "ignore"}')
    add("--instances", default="", metavar="CLASS", help="masks: each value is an object of this class")
    add("--label", default="", help="geo: class of all polygons (the vector file's name)")
    add("--label_field", default="", help="geo: field that holds the class of each polygon")
    add("--layer", default="", help="geo: layer of a vector file that has several")
    add("--window", type=int, default=512, help="geo: longest side of a window in pixels (%(default)s)")
    add("--bands", type=comma_list, default=(), help="geo: bands for red, green, blue (as marked, else 1,2,3)")
    add("--overwrite", action="store_true", help="replace an earlier conversion in OUT")
    add("--strict", action="store_true", help="what would be left out and counted is an error")
    return parser


def run(options: argparse.Namespace) -> int:
    """Convert, and say what was left out."""
    from satlisa.convert.writer import REPORT_FILE, check_output, write_dataset  # datasets takes a second

    shares = parse_shares(options.split) if options.split else ()
    _check(options)
    check_output(options.output, options.overwrite)
    names = read_json(options.names) if options.names else {}
    if not isinstance(names, dict) or not all(isinstance(word, str) and word.strip() for word in names.values()):
        raise SatlisaError(f'{options.names}: expected an object of words like {{"AnnualCrop": "annual crop"}}')
    words = Templates.load(options.templates, names, options.seed)
    problems = Problems(options.strict)
    read: Callable[..., list] = import_module(f"satlisa.convert.{options.format}").read  # type: ignore[type-arg]
    scenes = choose_splits(read(options.inputs, options, problems), Splitting(shares, options.seed, options.group))
    source = options.source or options.format
    negatives = choose_negatives(scenes, options.negatives, words)
    how = Asking(words, options.tasks, negatives, find_boxed(scenes), options.max_boxes, source)
    about = f"# Converted from {options.format}\n\n`{PROG} {' '.join(sys.argv[1:])}`"
    counts = write_dataset(options.output, scenes, lambda scene: ask(scene, how, problems), problems, about)
    for name, count in counts.items():
        print(f"{name}: {count:,} rows")
    for line in problems.summary():
        print(line)
    print(f"{options.output}: {counts.total():,} rows of {len(scenes):,} images; all of the above: {REPORT_FILE}")
    return 0


def _check(options: argparse.Namespace) -> None:
    if unknown := set(options.tasks) - set(TASKS):
        raise SatlisaError(f"--tasks: expected some of {', '.join(TASKS)}, found {', '.join(sorted(unknown))}")
    if not 0 <= options.negatives <= 1:
        raise SatlisaError(f"--negatives: expected a share from 0 to 1, found {options.negatives:g}")
    if options.window < 1 or options.max_boxes < 1:
        raise SatlisaError("--window, --max_boxes: expected a positive number")
    try:
        re.compile(options.group)
    except re.error as error:
        raise SatlisaError(f"--group: {options.group!r} is no regular expression ({error})") from error


def main() -> int:
    """The exit code: 0, or 2 for a mistake in what the user gave."""
    options = parser().parse_args()
    start_logging(options.debug)
    return run_command(PROG, partial(run, options), options.debug)
