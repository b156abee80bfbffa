"""Pretraining of the demo's VLM: dialogues about scenes, next-token cross entropy on the answers.

Two heads, thrown away afterwards, keep places in the states: the dense head of the tower (`pretrain_tower`), and a
linear layer that reads an object's place (`place_features`) from the state at the marker after its words.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satlisa.data.sample import Turn
from satlisa.data.synthetic import questions
from satlisa.demo import place_features
from satlisa.demo.boxes import box_recall
from satlisa.demo.chips import Chip
from satlisa.demo.fit import Loop, moved, say
from satlisa.demo.gallery import Exhibit
from satlisa.demo.lessons import LessonBatch, Lessons, Writer, all_questions
from satlisa.demo.pretrain_tower import DenseHead
from satlisa.demo.tensors import Tower
from satlisa.demo.tiny_models import IMAGE_SIZE
from satlisa.model.delta_net import patch_delta_net
from satlisa.processing.chat import IGNORE_INDEX, encode_prompt

LEARNING_RATE = 2e-3
BATCH_SIZE = 32
_GROUPS = 4  # of a batch, from short to long lessons, on a CPU, where padding costs more than a further call
SHARE_OF_SINGLE_QUESTIONS = 0.25  # of the steps, the last ones
DENSE_WEIGHT, PLACE_WEIGHT = 0.1, 1.0
_BOX = re.compile(r"(building|plane) \[(\d+), (\d+), (\d+), (\d+)\]")


class Reader:
    """A VLM that reads lessons: image tokens, states, and logits at supervised positions."""

    def __init__(self, model: Any, writer: Writer) -> None:
        self.model, self.marker = model, writer.marker
        self.tower = Tower(model.model.visual, IMAGE_SIZE)

    def __call__(self, batch: LessonBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Image tokens (B, C, D), states at the markers (M, D), logits (A, V) and their target tokens (A,)."""
        embedding = self.model.get_input_embeddings()
        tokens = self.tower(batch.pixels)
        embedded = embedding(batch.input_ids)
        # as `<SEG>` begins: the mean of the vocabulary
        blank = embedding.weight[: self.marker].detach().mean(dim=0)
        embedded = torch.where((batch.input_ids == self.marker)[..., None], blank, embedded)
        is_image = (batch.input_ids == self.model.config.image_token_id)[..., None]
        embedded = embedded.masked_scatter(is_image, tokens)
        groups = _GROUPS if embedded.device.type == "cpu" else 1
        rows = torch.arange(len(embedded)).chunk(groups)
        hidden = torch.cat([self._run_text(embedded, batch, slice(int(g[0]), int(g[-1]) + 1)) for g in rows])
        targets = batch.labels[:, 1:]
        supervised = targets != IGNORE_INDEX
        logits = self.model.lm_head(hidden[:, :-1][supervised])
        return tokens, hidden.flatten(0, 1)[batch.marker_places], logits, targets[supervised]

    def _run_text(self, embedded: Tensor, batch: LessonBatch, rows: slice) -> Tensor:
        """Last hidden states (b, T, D) of some rows, padded with zeros after their longest."""
        length = max(batch.lengths[rows])
        # Padding is on the right and attention causal: no mask is needed, and without one the fast kernel is taken.
        hidden: Tensor = self.model.model.language_model(
            inputs_embeds=embedded[rows, :length], position_ids=batch.position_ids[:, rows, :length], use_cache=False
        ).last_hidden_state
        return F.pad(hidden, (0, 0, 0, embedded.shape[1] - length))


def train_vlm(
    model: Any,
    head: DenseHead,
    writer: Writer,
    gallery: Sequence[Exhibit],
    chips: Sequence[Chip],
    steps: int,
    seed: int,
    loop: Loop,
) -> None:
    """Train all of the VLM, and the tower's head, in place, on their own device."""
    patch_delta_net()  # a fifth faster
    places = nn.Linear(model.config.text_config.hidden_size, place_features.WIDTH).to(model.device)
    single_from = round(steps * (1 - SHARE_OF_SINGLE_QUESTIONS))
    lessons = Lessons(writer, gallery, chips, steps, BATCH_SIZE, seed, single_from)
    teach("vlm", Reader(model, writer), lessons, LEARNING_RATE, places, loop, head)


def teach(
    stage: str,
    reader: Reader,
    lessons: Lessons,
    learning_rate: float,
    places: nn.Module,
    loop: Loop,
    head: DenseHead | None = None,
) -> None:
    """Train a reader's model on dialogues: cross entropy of the answers, and the error of the places at the markers.

    Args:
        places: reads place features from states; trained too.
        head: the tower's head, with its loss and trained too; None leaves both out.
    """
    model, steps = reader.model, len(lessons)

    def loss_of(step: int, batch: LessonBatch) -> Tensor:
        batch = moved(batch, model.device)
        tokens, states, logits, targets = reader(batch)
        text = F.cross_entropy(logits, targets)
        wanted = place_features.place_features(batch.marker_boxes, batch.marker_labels)
        place = F.mse_loss(places(states), wanted) if len(states) else text.new_zeros(())
        loss = text + PLACE_WEIGHT * place
        dense = head.loss(tokens, batch.dense) if head else None
        if step % 50 == 0 or step == steps - 1:
            accuracy = float((logits.argmax(-1) == targets).float().mean())
            said = f"{stage} step {step}/{steps} text {text.item():.3f} token accuracy {accuracy:.3f}"
            said += f" places {place.item():.4f}"
            if head and dense is not None:
                said += f" dense {dense.item():.3f}: {head.report(tokens, batch.dense)}"
            say(said)
        return loss if dense is None else loss + DENSE_WEIGHT * dense

    loop.fit(stage, model, lessons, loss_of, learning_rate, helpers=[head, places] if head else [places])


@torch.no_grad()
def score_vlm(model: Any, processor: Any, gallery: Sequence[Exhibit]) -> dict[str, float]:
    """Exact-match rate per question, and the share of boxes found with IoU ≥ 0.5.

    One teacher-forced pass per question suffices: the argmax is right at every position of an answer if and only if
    greedy decoding generates that answer.
    """
    model.eval()
    rng = np.random.default_rng(0)
    writer = Writer(processor)
    reader = Reader(model, writer)
    right: dict[str, list[bool]] = {}
    for exhibit in gallery:
        for question in all_questions(exhibit.plan, rng):
            batch = moved(writer.collate([exhibit.pixels], [None], [writer.write([(question, [])])]), model.device)
            *_, logits, targets = reader(batch)
            name = question.prompt if question.task == "object_detection" else question.task
            right.setdefault(name, []).append(bool((logits.argmax(-1) == targets).all()))
            if question.task == "flood_assessment":
                right.setdefault("flooding yes or no", []).append(bool(logits[0].argmax() == targets[0]))
    scores = {name: float(np.mean(values)) for name, values in right.items()}
    return {**scores, "boxes with IoU 0.5": score_boxes(model, processor, gallery[:64])}


@torch.no_grad()
def score_boxes(model: Any, processor: Any, gallery: Sequence[Exhibit]) -> float:
    """Share of the true boxes that match a generated box of the same label with IoU ≥ 0.5, in any order."""
    prompt = questions.ask_box_list(gallery[0].plan).prompt
    encoded = [encode_prompt(processor, [Turn("user", prompt)], exhibit.image) for exhibit in gallery]
    device = model.device
    input_ids = torch.stack([x.input_ids for x in encoded]).to(device)  # one prompt, one image size: no padding
    generated = model.generate(
        input_ids=input_ids,
        attention_mask=torch.ones_like(input_ids),
        mm_token_type_ids=(input_ids == model.config.image_token_id).long(),
        pixel_values=torch.cat([x.pixel_values for x in encoded]).to(device),
        image_grid_thw=torch.cat([x.image_grid_thw for x in encoded]).to(device),
        max_new_tokens=260,
        do_sample=False,
    )
    texts = processor.tokenizer.batch_decode(generated[:, input_ids.shape[1] :], skip_special_tokens=True)
    return box_recall(
        [[(label, [*map(int, sides)]) for label, *sides in _BOX.findall(text)] for text in texts], gallery
    )
