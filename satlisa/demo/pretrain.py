"""Pretrain the demo backbone from scratch on synthetic images: `python -m satlisa.demo.pretrain`.

The VLM and SAM train each in a process of its own, on a GPU at the same time. Training uses the "pretrain" split,
which nothing else uses; the final scores are on the "validation" split. After an interruption the same command resumes
(`checkpoint`).
"""

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from satlisa.data.synthetic.rows import demo_rows
from satlisa.demo import tiny_models as backbone
from satlisa.demo.adapt_sam import BATCH_SIZE, adapt_sam
from satlisa.demo.checkpoint import Checkpoint
from satlisa.demo.chips import Chip, read_chips, with_buildings
from satlisa.demo.collages import draw_collage
from satlisa.demo.fit import Loop, say
from satlisa.demo.gallery import Exhibit, open_crowded, open_gallery
from satlisa.demo.lessons import Writer
from satlisa.demo.pretrain_lists import train_lists
from satlisa.demo.pretrain_sam import score_sam, train_sam
from satlisa.demo.pretrain_tower import DenseHead, train_tower
from satlisa.demo.pretrain_vlm import score_vlm, train_vlm
from satlisa.demo.sam_lessons import SamLessons
from satlisa.demo.tensors import sam_pixels
from satlisa.demo.whitening import whiten
from satlisa.errors import SatlisaError

Gallery = Sequence[Exhibit]
WEIGHTS = Path(__file__).parent / "weights"
_TOKENIZER_SCENES = 400  # enough for their texts to contain every phrase
_DETERMINING = {
    "vlm": ("seed", "scenes", "crowded_scenes", "tower_steps", "vlm_steps", "list_steps"),
    "sam": ("seed", "scenes", "collages", "sam_steps", "adapt_steps"),
}  # the options, beside the chips, that a model's weights depend on
_WHITENED_BATCHES = 6  # that the covariance of patches is estimated from


def main(arguments: Sequence[str] | None = None) -> None:
    """Render the scenes, train both models, save them and print their scores."""
    options = parse(arguments)
    started = time.perf_counter()
    context = multiprocessing.get_context("fork")  # shares the rendered scenes instead of copying them
    cores = os.cpu_count() or 1
    sides = {"vlm": pretrain_vlm, "sam": pretrain_sam}
    chosen = [name for name in sides if options.only in (None, name)]
    try:
        chips = read_chips(options.chips) if options.chips else []
        checkpoints = {name: open_checkpoint(name, options, len(chips)) for name in chosen}
    except SatlisaError as error:
        raise SystemExit(f"error: {error}") from error
    train = open_gallery("pretrain", options.scenes, cores)
    validation = open_gallery("validation", options.validation_scenes, cores)
    print(f"drew {len(train) + len(validation)} scenes in {time.perf_counter() - started:.0f} s", flush=True)
    threads = torch.get_num_threads()  # OMP_NUM_THREADS, or all cores
    given = options, train, validation, chips
    workers = [
        context.Process(target=run, name=name, args=(sides[name], threads, Loop(options.workers, checkpoint), *given))
        for name, checkpoint in checkpoints.items()
    ]
    for worker in workers:
        worker.start()
        if options.device == "cpu":  # one after the other, each with all cores: neither has to wait for the longer one
            worker.join()
    for worker in workers:
        worker.join()
    if failed := [worker.name for worker in workers if worker.exitcode]:
        raise SystemExit(f"pretraining failed: {', '.join(failed)}")
    for checkpoint in checkpoints.values():  # not before: the same command would train the finished model again
        checkpoint.path.unlink(missing_ok=True)
    print(f"done in {time.perf_counter() - started:.0f} s: {options.output}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m satlisa.demo.pretrain", description=__doc__)
    parser.add_argument("--output", type=Path, default=WEIGHTS, help="folder for vlm/ and sam/ (%(default)s)")
    parser.add_argument("--chips", default="", help="dataset whose training pictures are used too, folder or hub id")
    parser.add_argument("--tower-steps", type=int, default=1000, help="steps of the vision tower alone (%(default)s)")
    parser.add_argument("--vlm-steps", type=int, default=1900, help="steps of the VLM after it (%(default)s)")
    parser.add_argument("--list-steps", type=int, default=1000, help="steps of lists at its end (%(default)s)")
    parser.add_argument("--sam-steps", type=int, default=1200, help="steps of SAM, stage 1 (%(default)s)")
    parser.add_argument("--adapt-steps", type=int, default=1200, help="stage 2, with collages and chips (%(default)s)")
    parser.add_argument("--scenes", type=int, default=3000, help="training scenes (%(default)s)")
    parser.add_argument("--crowded-scenes", type=int, default=1500, help="further ones, for lists (%(default)s)")
    parser.add_argument("--collages", type=int, default=2500, help="training collages (%(default)s)")
    parser.add_argument("--validation-scenes", type=int, default=100, help="validation scenes (%(default)s)")
    parser.add_argument("--only", choices=("vlm", "sam"), help="train only one of the models")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="processes per model that draw batches (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def open_checkpoint(name: str, options: argparse.Namespace, num_chips: int) -> Checkpoint:
    """Where a model's pretraining stands, beside its folder."""
    settings = {option: getattr(options, option) for option in _DETERMINING[name]}
    return Checkpoint(options.output / f"{name}.checkpoint.pt", {**settings, "chips": num_chips})


def run(side: Callable[..., dict[str, float]], threads: int, *given: Any) -> None:
    """Pretrain one model in this process, and print its scores on unseen scenes."""
    torch.set_num_threads(threads)
    for name, value in side(*given).items():
        say(f"unseen scenes: {name}: {value:.3f}")


def pretrain_vlm(
    loop: Loop, options: argparse.Namespace, train: Gallery, validation: Gallery, chips: Sequence[Chip]
) -> dict[str, float]:
    """Train, save and score the VLM."""
    rows = demo_rows("pretrain", _TOKENIZER_SCENES)
    texts = [turn["content"] for row in rows["conversations"] for turn in json.loads(row)]
    texts += [text for chip in chips for dialogue in chip.dialogues for text in dialogue]
    processor = backbone.make_processor(backbone.train_tokenizer(texts))
    model = backbone.new_vlm(processor, options.seed).to(options.device)
    head = DenseHead(model.config.vision_config.out_hidden_size).to(options.device)
    # First: a tower that has learnt to do without positions is slow to take them up.
    train_tower(model, head, train, options.tower_steps, options.seed, loop)
    writer = Writer(processor)
    train_vlm(model, head, writer, train, chips, options.vlm_steps, options.seed, loop)
    if options.list_steps:
        crowded = open_crowded("pretrain", options.crowded_scenes, options.scenes, os.cpu_count() or 1)
        train_lists(model, writer, train, crowded, chips, options.list_steps, options.seed, loop)
    backbone.save(model.cpu(), processor, options.output / "vlm")
    return score_vlm(model.to(options.device), processor, validation)


def pretrain_sam(
    loop: Loop, options: argparse.Namespace, train: Gallery, validation: Gallery, chips: Sequence[Chip]
) -> dict[str, float]:
    """Train, save and score SAM."""
    model, processor = backbone.new_sam(options.seed), backbone.sam_processor()
    collages = [draw_collage(number) for number in range(options.collages)]
    real = with_buildings(chips)
    samples = SamLessons(train, collages, real, _WHITENED_BATCHES, BATCH_SIZE, options.seed + 1)
    whiten(model, sam_pixels(torch.cat([samples[n].pixels for n in range(_WHITENED_BATCHES)])), options.seed)
    model.to(options.device)
    train_sam(model, train, options.sam_steps, options.seed, loop)
    if options.adapt_steps:
        adapt_sam(model, train, collages, real, options.adapt_steps, options.seed, loop)
    backbone.save(model.cpu(), processor, options.output / "sam")
    return score_sam(model, processor, validation)


if __name__ == "__main__":
    main()
