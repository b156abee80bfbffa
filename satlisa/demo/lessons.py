"""Batches for the VLM's pretraining: pictures, dialogues about them, and what the states should tell of places."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from satlisa.data.sample import Turn
from satlisa.data.synthetic import questions
from satlisa.data.synthetic.plan import Plan, SceneObject
from satlisa.data.synthetic.questions import Question
from satlisa.demo.chips import Chip
from satlisa.demo.collages import recoloured
from satlisa.demo.gallery import Exhibit
from satlisa.demo.place_features import LABELS
from satlisa.demo.place_questions import draw_place_question, place_words
from satlisa.demo.pretrain_tower import DenseTarget, dense_target
from satlisa.demo.tiny_models import IMAGE_SIZE, IMAGE_TOKENS
from satlisa.processing.chat import IGNORE_INDEX, encode_answer, encode_image, render_prompt
from satlisa.processing.collator import answer_positions, stack_positions

FORMS = ("box", "centre", "none")  # of a list of objects, as in `instance_places`
Asked = list[tuple[Question, list[tuple[str, SceneObject]]]]  # questions, and the objects listed after each answer
_SHARES = (0.5, 0.2, 0.3)
_LIST_SHARES = (0.8, 0.1, 0.1)  # of the forms, where lists are taught above all


@dataclass(frozen=True)
class Lesson:
    """A dialogue about one picture in tokens.

    Attributes:
        input_ids, labels: (T,) int64; labels are -100 except on answers, and on the markers in them.
        position_ids: (3, T) int64.
        marked: for each marker, its place in `input_ids` and the object that its state should tell the place of.
    """

    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    marked: tuple[tuple[int, SceneObject], ...] = ()


@dataclass(frozen=True)
class LessonBatch:
    """B lessons, T tokens, M markers.

    Attributes:
        pixels: (B, s, s, 3) uint8.
        input_ids, labels: (B, T) int64; position_ids: (3, B, T).
        marker_places: (M,) int64 in the flattened (B·T); marker_boxes: (M, 4) fractions; marker_labels: (M,) int64.
        dense: the dense target of the pictures.
        lengths: tokens of each lesson.
    """

    pixels: Tensor
    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    marker_places: Tensor
    marker_boxes: Tensor
    marker_labels: Tensor
    dense: DenseTarget
    lengths: tuple[int, ...]


class Writer:
    """Writes lessons; a marker is a token without a meaning, the first that the tokenizer leaves unused.

    `<SEG>` will be one. A pretrained language model's state at any token after an object's place tells of that object;
    this small one has to be taught so.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.marker = len(self.tokenizer)
        self.padding = self.tokenizer.pad_token_id
        self._blank = encode_image(processor, Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE)))
        self._prompt = functools.lru_cache(maxsize=4096)(self._render)

    def _render(self, prompt: str) -> tuple[Tensor, Tensor]:
        rendered = render_prompt(self.processor, [Turn("user", prompt)], *self._blank)
        return rendered.input_ids, rendered.position_ids

    def write(self, asked: Sequence[tuple[Question, Sequence[tuple[str, SceneObject]]]]) -> Lesson:
        """A dialogue of questions, each with the words about objects that follow its answer, and their objects.

        The first prompt equals that of fine-tuning and inference; the next are as the chat template renders them.
        """
        prompt, positions = self._prompt(asked[0][0].prompt)
        ids, labels, marked, length = [prompt], [torch.full_like(prompt, IGNORE_INDEX)], [], len(prompt)
        for number, (question, places) in enumerate(asked):
            if number:
                turn = (
                    f"\n<|im_start|>user\n{question.prompt}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
                )
                follow_up = torch.tensor(self.tokenizer(turn, add_special_tokens=False).input_ids)
                ids.append(follow_up)
                labels.append(torch.full_like(follow_up, IGNORE_INDEX))
                length += len(follow_up)
            words = [words for words, _ in places]
            answer = encode_answer(self.tokenizer, question.answer, len(places), self.marker, words)
            is_marker = answer == self.marker
            marked += [
                (length + place, thing)
                for place, (_, thing) in zip(is_marker.nonzero()[:, 0].tolist(), places, strict=True)
            ]
            ids.append(answer)
            labels.append(answer.masked_fill(is_marker, IGNORE_INDEX))
            length += len(answer)
        return Lesson(torch.cat(ids), torch.cat(labels), answer_positions(positions, length - len(prompt)), (*marked,))

    def collate(
        self, pixels: Sequence[np.ndarray], plans: Sequence[Plan | None], lessons: Sequence[Lesson]
    ) -> LessonBatch:
        """Stack pictures, their plans where these are known, and their lessons, padded right to the longest.

        The shortest lessons come first.
        """
        order = sorted(range(len(lessons)), key=lambda number: len(lessons[number].input_ids))
        pixels, plans = [pixels[number] for number in order], [plans[number] for number in order]
        lessons = [lessons[number] for number in order]
        input_ids = pad_sequence([x.input_ids for x in lessons], batch_first=True, padding_value=self.padding)
        length = input_ids.shape[1]
        marked = [(row * length + place, thing) for row, x in enumerate(lessons) for place, thing in x.marked]
        return LessonBatch(
            torch.from_numpy(np.stack(pixels)),
            input_ids,
            pad_sequence([x.labels for x in lessons], batch_first=True, padding_value=IGNORE_INDEX),
            stack_positions([x.position_ids for x in lessons]),
            torch.tensor([place for place, _ in marked], dtype=torch.int64),
            torch.tensor([thing.box for _, thing in marked]).reshape(-1, 4) / 1000,
            torch.tensor([LABELS.index(thing.label) for _, thing in marked], dtype=torch.int64),
            dense_target(plans, round(IMAGE_TOKENS**0.5)),
            tuple(len(x.input_ids) for x in lessons),
        )


def ask_list(plan: Plan, form: str) -> tuple[Question, list[tuple[str, SceneObject]]]:
    """The question of instance segmentation, with a marker for each object in one of `FORMS`."""
    return questions.ask_instances(plan), [(place_words(thing, form), thing) for thing in plan.objects]


def _draw_list(
    plan: Plan, rng: np.random.Generator, shares: Sequence[float]
) -> tuple[Question, list[tuple[str, SceneObject]]]:
    """The list of a scene's objects, in one of `FORMS`, drawn by its share."""
    return ask_list(plan, FORMS[rng.choice(3, p=shares)])


def all_questions(plan: Plan, rng: np.random.Generator) -> list[Question]:
    """One question per text task, and the count of objects."""
    return [
        questions.ask_class(plan),
        questions.ask_flood(plan),
        questions.ask_caption(plan),
        questions.ask_fact(plan, int(rng.integers(5))),
        questions.ask_object_count(plan),
    ]


def draw_dialogue(plan: Plan, rng: np.random.Generator, count: int) -> Asked:
    """`count` questions about a scene: a list of its objects most of the time, and others in turn."""
    others = all_questions(plan, rng)
    drawn: Asked = []
    if plan.objects:
        lists = [_draw_list(plan, rng, _SHARES), (questions.ask_box_list(plan), [])]
        drawn.append(lists[int(rng.random() < 0.4)])
        if rng.random() < 0.3:
            drawn.append((draw_place_question(plan, rng), []))
        if any(thing.label == "building" for thing in plan.objects) and rng.random() < 0.2:
            drawn.append((questions.ask_buildings(plan, int(rng.integers(3))), []))
    else:
        others.append(questions.ask_box_list(plan))
    drawn += [(others[i], []) for i in rng.permutation(len(others))]
    chosen = drawn[:count] if count > 1 else [drawn[rng.choice(len(drawn), p=_single_shares(drawn))]]
    return [chosen[i] for i in rng.permutation(len(chosen))]


def _single_shares(drawn: Sequence[Any]) -> np.ndarray:
    """One question per picture: a list of objects three times as often as each other one."""
    weights = np.array([3 if places or question.prompt.startswith("List") else 1 for question, places in drawn], float)
    shares: np.ndarray = weights / weights.sum()
    return shares


class Lessons(Dataset[LessonBatch]):
    """The batch of each step, the same in any process: pictures drawn and turned at random, dialogues about them.

    Args:
        single_from: the step from which each picture has one question, as in fine-tuning and inference; before it,
            several, because the picture costs most.
        list_share: share of the scenes with objects that are asked for their list alone, mostly with boxes.
        crowded: further scenes; where there are any, they are three eighths of each batch, all asked for their lists.
    """

    def __init__(
        self,
        writer: Writer,
        gallery: Sequence[Exhibit],
        chips: Sequence[Chip],
        steps: int,
        batch_size: int,
        seed: int,
        single_from: int,
        list_share: float = 0.0,
        crowded: Sequence[Exhibit] = (),
    ) -> None:
        self._writer, self._gallery, self._crowded, self._steps = writer, gallery, crowded, steps
        self._chips = [chip for chip in chips if chip.dialogues]
        self._batch_size, self._seed, self._single_from = batch_size, seed, single_from
        self._list_share = list_share

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> LessonBatch:
        rng = np.random.default_rng((self._seed, 1, step))
        count = 1 if step >= self._single_from else 3
        num_chips = self._batch_size // 8 if self._chips else 0
        num_crowded = 3 * self._batch_size // 8 if self._crowded else 0
        drawn = rng.integers(len(self._gallery), size=self._batch_size - num_chips - num_crowded)
        exhibits = [self._gallery[number].turned(int(rng.integers(8))) for number in drawn]
        lessons = [self._writer.write(self._draw(x.plan, rng, count)) for x in exhibits]
        for number in rng.integers(len(self._crowded), size=num_crowded):
            exhibits.append(self._crowded[number].turned(int(rng.integers(8))))
            lessons.append(self._writer.write([_draw_list(exhibits[-1].plan, rng, _LIST_SHARES)]))
        pixels, plans = [x.pixels for x in exhibits], [x.plan for x in exhibits]
        chips = [self._chips[number] for number in rng.integers(len(self._chips), size=num_chips)]
        for chip in chips:
            asked = [chip.dialogues[i] for i in rng.permutation(len(chip.dialogues))[:count]]
            lessons.append(self._writer.write([(Question("", *turns), []) for turns in asked]))
            pixels.append(recoloured(chip.whole(int(rng.integers(8))), rng))
        return self._writer.collate(pixels, [*plans, *[None] * num_chips], lessons)

    def _draw(self, plan: Plan, rng: np.random.Generator, count: int) -> Asked:
        if self._list_share and plan.objects and rng.random() < self._list_share:
            return [_draw_list(plan, rng, _LIST_SHARES)]
        return draw_dialogue(plan, rng, count)
