"""Questions about places: answers agree with the scene."""

import re

import numpy as np
import pytest

from satlisa.data.synthetic.plan import Plan
from satlisa.demo import place_questions as asked
from satlisa.geometry.regions import LabelledRegion
from satlisa.processing.places import describe_places

SCENES = [plan for plan in map(Plan, range(12)) if plan.objects]


def numbers(text):
    return [int(number) for number in re.findall(r"\d+", text)]


@pytest.mark.parametrize("plan", SCENES[:4], ids=lambda plan: plan.scene_class)
@pytest.mark.parametrize("form", ["box", "centre", "none"])
def test_places_are_written_as_in_instance_answers(plan, form):
    for thing in plan.objects:
        region = LabelledRegion.of((np.array(thing.polygon) / 1000,), thing.label)
        assert asked.place_words(thing, form) == describe_places([region], form)[0]


def test_one_prompt_has_one_form_of_answer():
    rng = np.random.default_rng(0)
    forms = {}
    for plan in SCENES * 20:
        question = asked.draw_place_question(plan, rng)
        prompt = re.sub(r"\d+", "0", question.prompt)
        forms.setdefault(prompt, set()).add(("[" in question.answer, "(" in question.answer))
    assert len(forms) >= 10
    assert all(len(found) == 1 for found in forms.values()), forms


def test_points_and_boxes_name_the_same_object():
    rng = np.random.default_rng(1)
    for plan in SCENES * 3:
        sides = {thing.box: thing.label for thing in plan.objects}
        question = asked.ask_around(plan, rng)
        (x, y), box = numbers(question.prompt), tuple(numbers(question.answer))
        assert sides[box] == question.answer.split()[0]
        assert box[0] <= x <= box[2] and box[1] <= y <= box[3]
        question = asked.ask_inside(plan, rng)
        assert tuple(numbers(question.prompt)) in sides and len(numbers(question.answer)) == 2


def test_presence_is_asked_half_and_half_and_told_rightly():
    rng = np.random.default_rng(2)
    told = []
    for plan in SCENES * 30:
        question = asked.ask_presence(plan, rng)
        x, y = numbers(question.prompt)
        inside = any(b[0] <= x <= b[2] and b[1] <= y <= b[3] for b in (thing.box for thing in plan.objects))
        assert question.answer == ("Yes" if inside else "No")
        told.append(inside)
    assert 0.4 < np.mean(told) < 0.6


def test_largest_and_nearest():
    plan = SCENES[0]
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (thing.box for thing in plan.objects)]
    assert tuple(numbers(asked.ask_largest(plan).answer)) == plan.objects[int(np.argmax(areas))].box
    for seed in range(4):
        question = asked.ask_corner(plan, np.random.default_rng(seed))
        assert tuple(numbers(question.answer)) in {thing.box for thing in plan.objects}
        assert re.search("(top|bottom) (left|right)", question.prompt)
