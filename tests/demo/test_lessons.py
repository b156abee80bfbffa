"""Lessons of the VLM's pretraining."""

import re

import numpy as np
import pytest
import torch

from satlisa.data.sample import Turn
from satlisa.data.synthetic import questions
from satlisa.demo.chips import Chip
from satlisa.demo.lessons import FORMS, Lessons, Writer, ask_list, draw_dialogue
from satlisa.demo.place_features import LABELS
from satlisa.demo.tiny_models import make_processor, train_tokenizer
from satlisa.processing.chat import IGNORE_INDEX, encode_answer, encode_prompt
from satlisa.processing.collator import Encoded, collate
from tests.helpers.scenes import PHRASES, unseen_scenes


@pytest.fixture(scope="module")
def writer():
    return Writer(make_processor(train_tokenizer(PHRASES)))


@pytest.fixture(scope="module")
def scene():
    return next(scene for scene in unseen_scenes(20) if len(scene.plan.objects) >= 3)


@pytest.mark.parametrize("form", FORMS)
def test_a_lesson_is_what_training_sees_later(writer, scene, form):
    """The same tokens, positions and targets as in fine-tuning, but for the marker, which is not supervised."""
    question, places = ask_list(scene.plan, form)
    lesson = writer.write([(question, places)])
    prompt = encode_prompt(writer.processor, [Turn("user", question.prompt)], scene.image)
    words = [words for words, _ in places]
    answer = encode_answer(writer.tokenizer, question.answer, len(words), writer.marker, words)
    markers = (answer == writer.marker).nonzero()[:, 0]
    masks = torch.zeros(len(markers), 4, 4)
    encoded = Encoded(0, "key", prompt, answer, markers, torch.zeros(3, 8, 8), None, masks, masks.bool())
    batch = collate([encoded], writer.padding)
    assert torch.equal(lesson.input_ids, batch.input_ids[0])
    assert torch.equal(lesson.position_ids, batch.position_ids[:, 0])
    spoken = batch.targets != writer.marker
    assert torch.equal((lesson.labels != IGNORE_INDEX).nonzero()[:, 0], batch.supervised[spoken] + 1)
    assert [place for place, _ in lesson.marked] == batch.seg_positions.tolist()
    assert [thing for _, thing in lesson.marked] == list(scene.plan.objects)


def test_a_dialogue_supervises_its_answers_only(writer, scene):
    asked = [questions.ask_class(scene.plan), questions.ask_flood(scene.plan)]
    lesson = writer.write([(question, []) for question in asked])
    supervised = writer.tokenizer.decode(lesson.labels[lesson.labels >= 0])
    assert supervised == "".join(f"{question.answer}<|im_end|>" for question in asked)
    assert lesson.position_ids.shape == (3, len(lesson.input_ids))
    assert writer.tokenizer.decode(lesson.input_ids).endswith(
        f"<|im_end|>\n<|im_start|>user\n{asked[1].prompt}<|im_end|>\n"
        f"<|im_start|>assistant\n<think>\n\n</think>\n\n{asked[1].answer}<|im_end|>"
    )


def test_drawn_dialogues_ask_everything(scene):
    rng = np.random.default_rng(0)
    prompts, forms = set(), set()
    for _ in range(300):
        dialogue = draw_dialogue(scene.plan, rng, 3)
        assert len(dialogue) == 3
        prompts |= {re.sub(r"\d+", "0", question.prompt) for question, _ in dialogue}
        forms |= {re.sub(r"\d+", "0", places[0][0]) for _, places in dialogue if places}
    assert len(prompts) > 15 and len(forms) >= 3
    assert [len(draw_dialogue(scene.plan, rng, 1)) for _ in range(5)] == [1] * 5


def test_a_batch_says_where_its_markers_are(writer, scene):
    chip = Chip(scene.image, np.zeros((256, 256), np.uint8), [("What is this?", "Sand"), ("Is it wet?", "No")])
    lessons = Lessons(writer, [scene, *unseen_scenes(2)], [chip], 4, 8, seed=0, single_from=2)
    batch, again = lessons[1], lessons[1]
    assert all(torch.equal(getattr(batch, n), getattr(again, n)) for n in ("pixels", "input_ids", "marker_places"))
    assert torch.equal(
        batch.input_ids.flatten()[batch.marker_places], torch.full_like(batch.marker_places, writer.marker)
    )
    assert (batch.input_ids == writer.marker).sum() == len(batch.marker_boxes) == len(batch.marker_labels) > 0
    assert set(batch.marker_labels.tolist()) <= set(range(len(LABELS)))
    assert list(batch.lengths) == sorted(batch.lengths) and batch.lengths[-1] == batch.input_ids.shape[1]
    unknown = (batch.dense.classes == IGNORE_INDEX).all(dim=1)
    assert unknown.sum() == 1  # the chip: one of eight
    questions_of = [
        int((row == writer.tokenizer.convert_tokens_to_ids("<|im_start|>")).sum()) for row in lessons[3].input_ids
    ]
    assert questions_of == [2] * 8  # from `single_from` on one question, one answer


def test_a_share_of_the_scenes_is_asked_for_lists_alone(writer, scene):
    def answers(share: float) -> int:
        lessons = Lessons(writer, [scene], [], 6, 8, seed=0, single_from=0, list_share=share)
        return sum(int((lessons[step].input_ids == writer.marker).any(dim=1).sum()) for step in range(6))

    assert answers(1.0) == 48 and answers(0.0) < answers(0.6) < 48


def test_crowded_scenes_are_asked_for_their_lists(writer, scene):
    empty = next(other for other in unseen_scenes(40) if not other.plan.objects)
    lessons = Lessons(writer, [empty], [], 2, 16, seed=0, single_from=0, crowded=[scene])
    batch = lessons[1]
    assert (batch.input_ids == writer.marker).any(dim=1).sum() == 6  # three eighths
    assert len(batch.marker_boxes) == 6 * len(scene.plan.objects)
    assert len({pixels.tobytes() for pixels in batch.pixels.numpy()}) > 8  # turned
