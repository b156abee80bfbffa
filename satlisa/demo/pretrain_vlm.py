"""Pretraining of the demo's VLM: questions about scenes, next-token cross entropy on the answers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from satlisa.data.sample import Turn
from satlisa.data.synthetic import questions
from satlisa.data.synthetic.plan import Plan
from satlisa.data.synthetic.questions import Question
from satlisa.demo.boxes import box_recall
from satlisa.demo.fit import fit, say
from satlisa.demo.gallery import Exhibit
from satlisa.processing.chat import IGNORE_INDEX, encode_prompt
from satlisa.processing.collator import answer_positions, stack_positions

LEARNING_RATE = 1.5e-3
BATCH_SIZE = 16
# Most steps ask several questions per image, so that the image, which costs most, is encoded once. The last part of
# training asks one question per image, as fine-tuning and inference do.
QUESTIONS_PER_IMAGE, SHARE_OF_SINGLE_QUESTIONS = 4, 0.25
_BOX = re.compile(r"(building|plane) \[(\d+), (\d+), (\d+), (\d+)\]")


@dataclass(frozen=True)
class Lesson:
    """Tensors of one image with questions and answers, T tokens; `labels` are -100 except on answers."""

    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    pixel_values: Tensor
    image_grid_thw: Tensor


def all_questions(plan: Plan, rng: np.random.Generator) -> list[Question]:
    """One question per text task, two for object detection (count and boxes)."""
    return [
        questions.ask_class(plan),
        questions.ask_flood(plan),
        questions.ask_caption(plan),
        questions.ask_fact(plan, int(rng.integers(5))),
        questions.ask_object_count(plan),
        questions.ask_box_list(plan),
    ]


def draw_questions(plan: Plan, rng: np.random.Generator, count: int) -> list[Question]:
    """Sample distinct questions; the box list, the hardest, has twice the weight of the others."""
    weights = np.array([1, 1, 1, 1, 1, 2]) / 7
    every = all_questions(plan, rng)
    return [every[i] for i in rng.choice(len(every), size=count, replace=False, p=weights)]


def encode_lesson(processor: Any, exhibit: Exhibit, asked: Sequence[Question]) -> Lesson:
    """Encode an image with a dialogue; the first prompt equals that of fine-tuning and inference."""
    tokenizer = processor.tokenizer
    first = encode_prompt(processor, [Turn("user", asked[0].prompt)], exhibit.image)
    ids, labels = [first.input_ids], [torch.full_like(first.input_ids, IGNORE_INDEX)]
    for number, question in enumerate(asked):
        if number:
            # as the chat template formats the next question of a dialogue
            turn = f"\n<|im_start|>user\n{question.prompt}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
            follow_up = torch.tensor(tokenizer(turn, add_special_tokens=False).input_ids)
            ids.append(follow_up)
            labels.append(torch.full_like(follow_up, IGNORE_INDEX))
        answer = torch.tensor([*tokenizer(question.answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id])
        ids.append(answer)
        labels.append(answer)
    positions = answer_positions(first.position_ids, sum(map(len, ids)) - len(first.input_ids))
    return Lesson(torch.cat(ids), torch.cat(labels), positions, first.pixel_values, first.image_grid_thw)


def run(model: Any, lessons: Sequence[Lesson], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Logits (A, V) at the supervised positions of all lessons, and their target tokens (A,)."""
    input_ids = pad_sequence([x.input_ids for x in lessons], batch_first=True, padding_value=pad_token_id)
    labels = pad_sequence([x.labels for x in lessons], batch_first=True, padding_value=IGNORE_INDEX)
    mask = pad_sequence([torch.ones_like(x.input_ids) for x in lessons], batch_first=True)
    hidden = model.model(
        input_ids=input_ids,
        attention_mask=mask,
        position_ids=stack_positions([x.position_ids for x in lessons]),
        pixel_values=torch.cat([x.pixel_values for x in lessons]),
        image_grid_thw=torch.cat([x.image_grid_thw for x in lessons]),
        mm_token_type_ids=(input_ids == model.config.image_token_id).long(),
        use_cache=False,
    ).last_hidden_state
    targets = labels[:, 1:]
    supervised = targets != IGNORE_INDEX
    return model.lm_head(hidden[:, :-1][supervised]), targets[supervised]


def train_vlm(model: Any, processor: Any, gallery: Sequence[Exhibit], steps: int, seed: int) -> None:
    """Train all of the VLM in place."""
    rng = np.random.default_rng((seed, 1))

    def loss_of(step: int) -> Tensor:
        single = step >= steps * (1 - SHARE_OF_SINGLE_QUESTIONS)
        lessons = []
        for number in rng.integers(len(gallery), size=BATCH_SIZE):
            exhibit = gallery[number].turned(int(rng.integers(8)))
            asked = draw_questions(exhibit.plan, rng, 1 if single else QUESTIONS_PER_IMAGE)
            lessons.append(encode_lesson(processor, exhibit, asked))
        logits, targets = run(model, lessons, processor.tokenizer.pad_token_id)
        loss = F.cross_entropy(logits, targets)
        if step % 20 == 0 or step == steps - 1:
            accuracy = float((logits.argmax(-1) == targets).float().mean())
            say(f"vlm step {step}/{steps} loss {loss.item():.3f} token accuracy {accuracy:.3f}")
        return loss

    fit(model, loss_of, steps, LEARNING_RATE)


@torch.no_grad()
def score_vlm(model: Any, processor: Any, gallery: Sequence[Exhibit]) -> dict[str, float]:
    """Exact-match rate per question, and the share of boxes found with IoU ≥ 0.5.

    One teacher-forced pass per question suffices: the argmax is right at every position of an answer if and only if
    greedy decoding generates that answer.
    """
    model.eval()
    rng = np.random.default_rng(0)
    right: dict[str, list[bool]] = {}
    for exhibit in gallery:
        for question in all_questions(exhibit.plan, rng)[:-1]:
            lesson = encode_lesson(processor, exhibit, [question])
            logits, targets = run(model, [lesson], processor.tokenizer.pad_token_id)
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
    input_ids = torch.stack([x.input_ids for x in encoded])  # one prompt, one image size: no padding
    generated = model.generate(
        input_ids=input_ids,
        attention_mask=torch.ones_like(input_ids),
        mm_token_type_ids=(input_ids == model.config.image_token_id).long(),
        pixel_values=torch.cat([x.pixel_values for x in encoded]),
        image_grid_thw=torch.cat([x.image_grid_thw for x in encoded]),
        max_new_tokens=260,
        do_sample=False,
    )
    texts = processor.tokenizer.batch_decode(generated[:, input_ids.shape[1] :], skip_special_tokens=True)
    return box_recall(
        [[(label, [*map(int, sides)]) for label, *sides in _BOX.findall(text)] for text in texts], gallery
    )
