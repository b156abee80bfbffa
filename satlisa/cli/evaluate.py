"""`python infer_dataset.py` and `satlisa-evaluate`: evaluate a model on samples of every task."""

import argparse
import logging
import sys
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

from satlisa.cli.common import CommandParser, called_as, run_command, start_logging
from satlisa.config import DEFAULT_MAX_NEW_TOKENS, comma_list
from satlisa.errors import SatlisaError
from satlisa.runtime.signals import Interrupted, raise_on_signal

logger = logging.getLogger("satlisa")

_OUTPUT, _COMPARED = "./eval_output", "./compare_output"
PROG = called_as("infer_dataset.py", "satlisa-evaluate")


def parser() -> CommandParser:
    """The command line."""
    about = "Evaluate a model on samples of every task. Several processes (accelerate launch) share the work."
    parser = CommandParser(PROG, about)
    add = parser.add_argument
    hub_id = "rahuldshetty/satellite-omni-lisa"
    add("--model_repo", "--model_dir", dest="model_dir", default=hub_id, help="hub id or folder (%(default)s)")
    add("--dataset", default="", help="hub id, folder or 'demo' (what the model was trained on)")
    add("--split", default="validation", help="part of the dataset (%(default)s)")
    add("--samples_per_task", type=int, default=3, help="0 for all (%(default)s)")
    add("--seed", type=int, default=0, help="decides which samples (%(default)s)")
    add(
        "--seg_tasks",
        type=comma_list,
        default=(),
        help="further tasks with masks not named segmentation (SEG_TASKS of the training)",
    )
    add("--output_dir", default=_OUTPUT, help="an earlier report in it is replaced (%(default)s)")
    add("--resume", action="store_true", help="resume the evaluation that was interrupted in output_dir")
    add("--report_samples", type=int, default=50, help="samples shown per task in REPORT.md (%(default)s)")
    add(
        "--compare",
        nargs=2,
        metavar="RESULTS",
        help=f"two results.json of the same rows: print their differences, write COMPARE.md ({_COMPARED})",
    )
    add("--device", help="cuda, cuda:1, cpu or mps (best available, a GPU for each process)")
    add("--batch_size", type=int, default=8, help="questions answered together (%(default)s)")
    add("--max_new_tokens", type=int, default=DEFAULT_MAX_NEW_TOKENS, help="longest answer (%(default)s)")
    return parser


def run(options: argparse.Namespace) -> int:
    """Evaluate and write the report; exit code 1 where no sample at all could be answered."""
    if options.compare:
        return compare(options)
    # torch and transformers take seconds that --help need not wait for
    from satlisa.data.dataset import check_hub_dataset, load_rows
    from satlisa.data.mixing import parse_datasets
    from satlisa.evaluation.evaluate import evaluate
    from satlisa.evaluation.partial_report import PartialReport
    from satlisa.evaluation.report import REPORT_FILE, headline, plain_table, write_report
    from satlisa.evaluation.windows import EvalSettings
    from satlisa.pretrained.model_directory import find_model_dir, fingerprint_model, load_model
    from satlisa.runtime.processes import ProcessGroup

    settings = EvalSettings(**{f.name: getattr(options, f.name) for f in fields(EvalSettings) if f.name in options})
    processes = ProcessGroup.join()
    with PartialReport(options.output_dir, resume=options.resume, processes=processes) as report:
        model = load_model(options.model_dir, processes.device(options.device))
        if not options.dataset and not Path(options.model_dir).expanduser().is_dir():
            check_hub_dataset(model.config.dataset, f"{options.model_dir}: dataset")
        files = fingerprint_model(find_model_dir(options.model_dir))
        seg_tasks = tuple(dict.fromkeys([*getattr(model.config, "seg_tasks", ()), *options.seg_tasks]))
        dataset = options.dataset or model.config.dataset
        if len(names := parse_datasets(dataset)) > 1:
            raise SatlisaError(f"--dataset: the model was trained on {' and '.join(names)}; name one of them")
        settings = replace(settings, dataset=dataset, model_files=files, seg_tasks=seg_tasks)
        results = evaluate(model, load_rows(settings.dataset, settings.split), settings, report)
        if processes.is_main:
            write_report(results, report.folder)
    errors = [entry["error"] for entry in results["samples"]]
    if processes.is_main:
        print("\n".join([plain_table(results), "", *headline(results)]))
        print(f"\nReport: {report.output_dir / REPORT_FILE}")
        if None not in errors:
            print(f"{PROG}: no sample was answered; the first error: {errors[0]}", file=sys.stderr)
    return 0 if None in errors else 1


def compare(options: argparse.Namespace) -> int:
    """Print the differences of two evaluations, and write them to COMPARE.md."""
    from satlisa.evaluation.compare import COMPARE_FILE, write_comparison
    from satlisa.evaluation.scoring.summary import statistics_of

    first, second = options.compare
    folder = Path(_COMPARED if options.output_dir == _OUTPUT else options.output_dir).expanduser()
    print(write_comparison(first, second, folder, statistics_of))
    print(f"\nWritten: {folder / COMPARE_FILE}")
    return 0


def main() -> int:
    """The exit code: besides `run`'s, 2 for a mistake in what the user gave, 130 and 143 for Ctrl-C and SIGTERM."""
    options = parser().parse_args()
    start_logging(options.debug)
    try:
        with raise_on_signal():
            return run_command(PROG, partial(run, options), options.debug)
    except Interrupted as stopped:
        logger.info("%s: %s", PROG, stopped)  # once for all processes
        return 128 + stopped.number
