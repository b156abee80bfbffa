"""Evaluate a model on samples of every task of a dataset: REPORT.md, results.json and pictures."""

import argparse
import logging
import sys
from dataclasses import fields, replace
from pathlib import Path

from satlisa.errors import SatlisaError


def names(text: str) -> tuple[str, ...]:
    """Names out of a comma list."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def parser() -> argparse.ArgumentParser:
    """The command line."""
    about = "Evaluate a model on samples of every task of a dataset."
    parser = argparse.ArgumentParser(prog="infer_dataset.py", description=about)
    add = parser.add_argument
    hub_id = "rahuldshetty/satellite-omni-lisa"
    add("--model_repo", "--model_dir", dest="model_dir", default=hub_id, help="hub id or folder (%(default)s)")
    add("--dataset", default="", help="hub id, folder or 'demo' (what the model was trained on)")
    add("--split", default="validation", help="part of the dataset (%(default)s)")
    add("--samples_per_task", type=int, default=3, help="0 for all (%(default)s)")
    add("--seed", type=int, default=0, help="decides which samples (%(default)s)")
    add("--seg_tasks", type=names, default=(), help="tasks with masks not named segmentation, comma list")
    add("--output_dir", default="./eval_output", help="an earlier report in it is replaced (%(default)s)")
    add("--report_samples", type=int, default=50, help="samples shown per task in REPORT.md (%(default)s)")
    add("--device", help="cuda, cuda:1, cpu or mps (the best there is)")
    add("--batch_size", type=int, default=8, help="questions answered together (%(default)s)")
    add("--max_new_tokens", type=int, default=256, help="longest answer (%(default)s)")
    add("--debug", action="store_true", help="show tracebacks")
    return parser


def run(options: argparse.Namespace) -> int:
    """Evaluate and write the report; exit code 1 where no sample at all could be answered."""
    # torch and transformers take seconds that --help need not wait for
    from satlisa.checkpoint import load_model
    from satlisa.dataset import load_rows
    from satlisa.evaluate import EvalSettings, evaluate
    from satlisa.report import REPORT_FILE, headline, plain_table, replacing, write_report

    settings = EvalSettings(**{field.name: getattr(options, field.name) for field in fields(EvalSettings)})
    with replacing(options.output_dir) as folder:
        model = load_model(options.model_dir, options.device)
        settings = replace(settings, dataset=options.dataset or model.config.dataset)
        results = evaluate(model, load_rows(settings.dataset, settings.split), settings, folder / "images")
        write_report(results, folder)
    print("\n".join([plain_table(results), "", *headline(results)]))
    print(f"\nReport: {Path(options.output_dir) / REPORT_FILE}")
    errors = [entry["error"] for entry in results["samples"]]
    if None in errors:
        return 0
    print(f"infer_dataset.py: no sample was answered; the first error: {errors[0]}", file=sys.stderr)
    return 1


def main() -> int:
    """Exit code 2 for a mistake in what the user gave."""
    options = parser().parse_args()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("satlisa").setLevel(logging.DEBUG if options.debug else logging.INFO)
    try:
        return run(options)
    except SatlisaError as error:
        if options.debug:
            raise
        print(f"infer_dataset.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
