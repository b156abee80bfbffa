"""A stage after the VLM's pretraining: the text side learns to read places out of the vision tower.

Most lessons list boxes or centres and ask one more question about a place; the others repeat the tasks before. The
dense target of the tower stays, so that the tower keeps what it knows.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from satlisa.demo.fit import fit, say
from satlisa.demo.gallery import Exhibit
from satlisa.demo.place_questions import draw_place_questions
from satlisa.demo.pretrain_tower import DenseHead, dense_target
from satlisa.demo.pretrain_vlm import draw_questions, encode_lesson, run
from satlisa.model.delta_net import patch_delta_net

LEARNING_RATE = 1e-3
PLACE_LESSONS, OTHER_LESSONS = 9, 3  # of a step
_DENSE_WEIGHT = 0.2


def train_places(
    model: Any, head: DenseHead, processor: Any, gallery: Sequence[Exhibit], steps: int, seed: int
) -> None:
    """Train all of the VLM, and the head, in place."""
    patch_delta_net()  # a fifth faster
    rng = np.random.default_rng((seed, 5))
    tower: list[Tensor] = []
    hook = model.model.visual.register_forward_hook(lambda _, __, output: tower.append(output.pooler_output))

    def loss_of(step: int) -> Tensor:
        drawn = rng.integers(len(gallery), size=PLACE_LESSONS + OTHER_LESSONS)
        exhibits = [gallery[number].turned(int(rng.integers(8))) for number in drawn]
        asked = [draw_place_questions(x.plan, rng) for x in exhibits[:PLACE_LESSONS]]
        asked += [draw_questions(x.plan, rng, 2) for x in exhibits[PLACE_LESSONS:]]
        lessons = [encode_lesson(processor, *pair) for pair in zip(exhibits, asked, strict=True)]
        logits, targets = run(model, lessons, processor.tokenizer.pad_token_id)
        loss = F.cross_entropy(logits, targets)
        tokens = tower.pop().unflatten(0, (len(exhibits), -1))
        dense = head.loss(tokens, dense_target([x.plan.objects for x in exhibits], round(tokens.shape[1] ** 0.5)))
        if step % 20 == 0 or step == steps - 1:
            accuracy = float((logits.argmax(-1) == targets).float().mean())
            say(
                f"places step {step}/{steps} loss {loss.item():.3f} token accuracy {accuracy:.3f} "
                f"dense loss {dense.item():.3f}"
            )
        return loss + _DENSE_WEIGHT * dense

    fit(model, loss_of, steps, LEARNING_RATE, helpers=[head])
    hook.remove()
