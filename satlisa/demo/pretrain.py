"""Rebuild the demo backbone from the synthetic scenes alone: `python -m satlisa.demo.pretrain`.

Both sides learn at the same time, each in a process of its own with half of the cores. The scenes are those of the
"pretrain" split, which nothing else uses; the numbers at the end are of scenes of the "validation" split.
"""

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from satlisa.data.synthetic.rows import demo_rows
from satlisa.demo import tiny_models as backbone
from satlisa.demo.broaden_sam import broaden_sam
from satlisa.demo.collages import draw_collage
from satlisa.demo.gallery import Exhibit, open_gallery
from satlisa.demo.pretrain_sam import score_sam, train_sam
from satlisa.demo.pretrain_vlm import score_vlm, train_vlm

WEIGHTS = Path(__file__).parent / "weights"
_TOKENIZER_SCENES = 400  # their texts hold every phrase


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the scenes, train both sides, write the two folders and the numbers."""
    options = parse(arguments)
    started = time.perf_counter()
    context = multiprocessing.get_context("fork")  # the drawn scenes are shared, not copied
    cores = os.cpu_count() or 1
    train = open_gallery("pretrain", options.scenes, cores)
    validation = open_gallery("validation", options.validation_scenes, cores)
    print(f"drew {len(train) + len(validation)} scenes in {time.perf_counter() - started:.0f} s", flush=True)
    sides = {"vlm": pretrain_vlm, "sam": pretrain_sam}
    chosen = [sides[name] for name in sides if options.only in (None, name)]
    workers = [context.Process(target=side, args=(options, train, validation, len(chosen))) for side in chosen]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failed := [worker.name for worker in workers if worker.exitcode]:
        raise SystemExit(f"pretraining failed in {failed}")
    print(f"done in {time.perf_counter() - started:.0f} s: {options.output}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m satlisa.demo.pretrain", description=__doc__)
    parser.add_argument("--output", type=Path, default=WEIGHTS, help="folder for vlm/ and sam/ (%(default)s)")
    parser.add_argument("--vlm-steps", type=int, default=1000, help="steps of the text side (%(default)s)")
    parser.add_argument("--sam-steps", type=int, default=1200, help="steps of the SAM side (%(default)s)")
    parser.add_argument("--broaden-steps", type=int, default=700, help="steps with collages after that (%(default)s)")
    parser.add_argument("--scenes", type=int, default=3000, help="scenes to learn from (%(default)s)")
    parser.add_argument("--collages", type=int, default=2500, help="collages to learn from (%(default)s)")
    parser.add_argument("--validation-scenes", type=int, default=200, help="scenes to score on (%(default)s)")
    parser.add_argument("--only", choices=("vlm", "sam"), help="train one side alone")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def pretrain_vlm(
    options: argparse.Namespace, train: Sequence[Exhibit], validation: Sequence[Exhibit], workers: int
) -> None:
    """Train, score and write the text side."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    rows = demo_rows("pretrain", _TOKENIZER_SCENES)
    texts = [turn["content"] for row in rows.texts() for turn in json.loads(row)]
    processor = backbone.make_processor(backbone.train_tokenizer(texts))
    model = backbone.new_vlm(processor, options.seed)
    train_vlm(model, processor, train, options.vlm_steps, options.seed, say)
    backbone.save_vlm(model, processor, options.output / "vlm")
    report(score_vlm(model, processor, validation))


def pretrain_sam(
    options: argparse.Namespace, train: Sequence[Exhibit], validation: Sequence[Exhibit], workers: int
) -> None:
    """Train, score and write the SAM side."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    processor, model = backbone.sam_processor(), backbone.new_sam(options.seed)
    train_sam(model, processor, train, options.sam_steps, options.seed, say)
    collages = [draw_collage(number) for number in range(options.collages)]
    broaden_sam(model, processor, train, collages, options.broaden_steps, options.seed, say)
    backbone.save_sam(model, options.output / "sam")
    report(score_sam(model, processor, validation))


def report(scores: dict[str, float]) -> None:
    """Print numbers of unseen scenes."""
    for name, value in scores.items():
        say(f"unseen scenes: {name}: {value:.3f}")


def say(line: str) -> None:
    """A line with the time, at once."""
    print(time.strftime("%H:%M:%S"), line, flush=True)


if __name__ == "__main__":
    main()
