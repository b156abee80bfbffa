"""What scores cost: all of them, with their intervals, against the answers that they are about."""

from typing import Any

import numpy as np

from benchmarks.measure import Row, race
from benchmarks.works import Bench, expect
from satlisa.config import DEFAULT_MAX_NEW_TOKENS
from satlisa.data.rows import read_sample
from satlisa.data.sample import Sample
from satlisa.data.synthetic.rows import demo_rows
from satlisa.evaluation.entry import Pick, score
from satlisa.evaluation.scoring.instances import encode_mask
from satlisa.evaluation.scoring.summary import scores_of
from satlisa.geometry.raster import rasterize
from satlisa.inference.generation import Answer, answer

_SCENES = 40
_EVERYTHING = 2**31


def scoring(bench: Bench) -> list[Row]:
    """Scoring of true answers about synthetic scenes, against answering the same questions.

    The true answers have as many masks as an answer can have. The model that answers is the packaged backbone, which
    gives no mask: a trained one takes longer, so that the share of the scores is smaller there.
    """
    model = bench.model()
    rows = demo_rows("test", _SCENES)
    samples = [read_sample(rows[number], number, max_instances=_EVERYTHING) for number in range(len(rows))]
    truths = [_truth(sample) for sample in samples]

    def ours() -> Any:
        entries = [
            score(Pick(sample.index, sample.index, sample.task, False), sample, truth, model.config, ())[0]
            for sample, truth in zip(samples, truths, strict=True)
        ]
        tasks = {entry["task"] for entry in entries}
        return {task: scores_of([entry for entry in entries if entry["task"] == task]) for task in tasks}

    def peer() -> Any:
        images, prompts = [sample.image for sample in samples], [sample.turns for sample in samples]
        return answer(model, images, prompts, max_new_tokens=DEFAULT_MAX_NEW_TOKENS, batch_size=16, only_union=True)

    scores = ours()
    expect(scores["instance_segmentation"]["ap"] == 1.0, "the truth has an average precision below 1")
    seconds = race(ours, peer, bench.repeats, bench.device)
    return [
        Row(f"scores of {len(samples)} answers ({bench.size}), answering them", *seconds, "s", "the truth scores 1.0")
    ]


def _truth(sample: Sample) -> Answer:
    masks = [rasterize(region, *sample.image.size[::-1]) for region in sample.regions]
    union = np.any(masks, axis=0)[None] if masks else np.zeros((0, *sample.image.size[::-1]), dtype=bool)
    encoded = tuple(map(encode_mask, masks))
    return Answer(sample.answer, union, np.ones(len(masks), dtype=np.float32), [], encoded)
