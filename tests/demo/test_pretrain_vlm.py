"""Lessons of the text side's pretraining."""

import torch

from satlisa.data.sample import Turn
from satlisa.data.synthetic import questions
from satlisa.demo.pretrain_vlm import encode_lesson
from satlisa.demo.tiny_models import make_processor, train_tokenizer
from satlisa.processing.chat import encode_answer, encode_prompt
from satlisa.processing.collator import Encoded, collate
from tests.helpers.scenes import PHRASES, unseen_scenes


def test_a_lesson_is_what_training_sees_later():
    processor, exhibit = make_processor(train_tokenizer(PHRASES)), unseen_scenes(1)[0]
    question = questions.ask_class(exhibit.plan)
    lesson = encode_lesson(processor, exhibit, [question])
    prompt = encode_prompt(processor, [Turn("user", question.prompt)], exhibit.image)
    answer = encode_answer(processor.tokenizer, question.answer, num_masks=0, seg_token_id=-1)
    nothing = torch.zeros(0, 4, 4)
    encoded = Encoded(0, "key", prompt, answer, torch.empty(0).long(), None, None, nothing, nothing.bool())
    batch = collate([encoded], processor.tokenizer.pad_token_id)
    assert torch.equal(lesson.input_ids, batch.input_ids[0])
    assert torch.equal((lesson.labels >= 0).nonzero()[:, 0], batch.supervised + 1)
    assert torch.equal(lesson.labels[lesson.labels >= 0], batch.targets)
    assert torch.equal(lesson.position_ids, batch.position_ids[:, 0])


def test_a_dialogue_supervises_its_answers_only():
    processor, exhibit = make_processor(train_tokenizer(PHRASES)), unseen_scenes(1)[0]
    asked = [questions.ask_class(exhibit.plan), questions.ask_flood(exhibit.plan)]
    lesson = encode_lesson(processor, exhibit, asked)
    supervised = processor.tokenizer.decode(lesson.labels[lesson.labels >= 0])
    assert supervised == "".join(f"{question.answer}<|im_end|>" for question in asked)
    assert lesson.position_ids.shape == (3, len(lesson.input_ids))
    text = processor.tokenizer.decode(lesson.input_ids)
    assert text.endswith(
        f"<|im_end|>\n<|im_start|>user\n{asked[1].prompt}<|im_end|>\n"
        f"<|im_start|>assistant\n<think>\n\n</think>\n\n{asked[1].answer}<|im_end|>"
    )
