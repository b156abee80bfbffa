"""Pretrain the demo backbone from scratch on synthetic images: `python -m satlisa.demo.pretrain`.

The VLM and SAM train in parallel, each in its own process with half of the cores. Training uses the "pretrain" split,
which nothing else uses; the final scores are on the "validation" split.
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
from satlisa.demo.fit import say
from satlisa.demo.gallery import Exhibit, open_gallery
from satlisa.demo.pretrain_sam import score_sam, train_sam
from satlisa.demo.pretrain_vlm import score_vlm, train_vlm

WEIGHTS = Path(__file__).parent / "weights"
_TOKENIZER_SCENES = 400  # enough for their texts to contain every phrase


def main(arguments: Sequence[str] | None = None) -> None:
    """Render the scenes, train both models, save them and print their scores."""
    options = parse(arguments)
    started = time.perf_counter()
    context = multiprocessing.get_context("fork")  # shares the rendered scenes instead of copying them
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
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m satlisa.demo.pretrain", description=__doc__)
    parser.add_argument("--output", type=Path, default=WEIGHTS, help="folder for vlm/ and sam/ (%(default)s)")
    parser.add_argument("--vlm-steps", type=int, default=1000, help="training steps of the VLM (%(default)s)")
    parser.add_argument("--sam-steps", type=int, default=1200, help="training steps of SAM, stage 1 (%(default)s)")
    parser.add_argument("--broaden-steps", type=int, default=700, help="stage 2, with collages (%(default)s)")
    parser.add_argument("--scenes", type=int, default=3000, help="training scenes (%(default)s)")
    parser.add_argument("--collages", type=int, default=2500, help="training collages (%(default)s)")
    parser.add_argument("--validation-scenes", type=int, default=200, help="validation scenes (%(default)s)")
    parser.add_argument("--only", choices=("vlm", "sam"), help="train only one of the models")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def pretrain_vlm(
    options: argparse.Namespace, train: Sequence[Exhibit], validation: Sequence[Exhibit], workers: int
) -> None:
    """Train, score and save the VLM."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    rows = demo_rows("pretrain", _TOKENIZER_SCENES)
    texts = [turn["content"] for row in rows.texts() for turn in json.loads(row)]
    processor = backbone.make_processor(backbone.train_tokenizer(texts))
    model = backbone.new_vlm(processor, options.seed)
    train_vlm(model, processor, train, options.vlm_steps, options.seed)
    backbone.save_vlm(model, processor, options.output / "vlm")
    report(score_vlm(model, processor, validation))


def pretrain_sam(
    options: argparse.Namespace, train: Sequence[Exhibit], validation: Sequence[Exhibit], workers: int
) -> None:
    """Train, score and save SAM."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    processor, model = backbone.sam_processor(), backbone.new_sam(options.seed)
    train_sam(model, processor, train, options.sam_steps, options.seed)
    collages = [draw_collage(number) for number in range(options.collages)]
    broaden_sam(model, processor, train, collages, options.broaden_steps, options.seed)
    backbone.save_sam(model, options.output / "sam")
    report(score_sam(model, processor, validation))


def report(scores: dict[str, float]) -> None:
    """Print scores on unseen scenes."""
    for name, value in scores.items():
        say(f"unseen scenes: {name}: {value:.3f}")


if __name__ == "__main__":
    main()
