"""Questions about where things are, for the VLM's pretraining; their answers follow from a scene's objects alone."""

from collections.abc import Callable, Sequence

import numpy as np

from satlisa.data.synthetic.plan import Plan, SceneObject
from satlisa.data.synthetic.questions import Question
from satlisa.geometry.regions import LabelledRegion
from satlisa.processing.places import describe_places

_TASK = "object_detection"
_MISSED = 60  # a point without an object is this far from every box, in thousandths


def ask_largest(plan: Plan) -> Question:
    """The box of the largest object."""
    largest = max(plan.objects, key=_area)
    return Question(_TASK, "Where is the largest object?", f"{largest.label} {written_box(largest)}")


def ask_corner(plan: Plan, rng: np.random.Generator) -> Question:
    """The object nearest to a corner."""
    down, right = rng.integers(2, size=2)
    corner = np.array([right, down]) * 1000
    nearest = min(plan.objects, key=lambda thing: float(np.abs(_middle(thing) - corner).sum()))
    name = f"{('top', 'bottom')[down]} {('left', 'right')[right]}"
    return Question(_TASK, f"What is nearest to the {name} corner?", f"{nearest.label} {written_box(nearest)}")


def ask_around(plan: Plan, rng: np.random.Generator) -> Question:
    """The object around a point: from centres to boxes."""
    thing = plan.objects[rng.integers(len(plan.objects))]
    return Question(_TASK, f"What is at {centre(thing)}?", f"{thing.label} {written_box(thing)}")


def ask_inside(plan: Plan, rng: np.random.Generator) -> Question:
    """The centre of what is in a box: from boxes to centres."""
    thing = plan.objects[rng.integers(len(plan.objects))]
    return Question(_TASK, f"What is in {written_box(thing)}?", f"{thing.label} {centre(thing)}")


def ask_presence(plan: Plan, rng: np.random.Generator) -> Question:
    """Whether there is something at a point; as often yes as no."""
    if rng.random() < 0.5:
        place = _middle(plan.objects[rng.integers(len(plan.objects))])
    else:
        places = rng.integers(20, 980, (20, 2))
        free = [p for p in places if all(_distance(thing, p) > _MISSED for thing in plan.objects)]
        place = free[0] if free else places[0]
    found = any(_distance(thing, place) <= 0 for thing in plan.objects)
    return Question(_TASK, f"Is there a building or plane at ({place[0]}, {place[1]})?", "Yes" if found else "No")


def ask_count(plan: Plan, rng: np.random.Generator) -> Question:
    """How many objects of a label there are."""
    label = ("building", "plane")[rng.integers(2)]
    count = sum(thing.label == label for thing in plan.objects)
    return Question(_TASK, f"How many {label}s are there?", str(count))


def draw_place_question(plan: Plan, rng: np.random.Generator) -> Question:
    """A short question about a place, of a scene with objects."""
    kinds: Sequence[Callable[[Plan, np.random.Generator], Question]] = (
        ask_corner,
        ask_around,
        ask_inside,
        ask_presence,
        ask_count,
        lambda plan, _: ask_largest(plan),
    )
    return kinds[int(rng.integers(len(kinds)))](plan, rng)


def place_words(thing: SceneObject, form: str) -> str:
    """An object's label and its place in a form of `instance_places`, as fine-tuning writes them; "" for `none`."""
    outline = LabelledRegion.of((np.array(thing.polygon) / 1000,), thing.label)
    return describe_places([outline], form)[0]


def written_box(thing: SceneObject) -> str:
    """An object's box as text, "[412, 88, 530, 190]"."""
    return str(list(thing.box))


def centre(thing: SceneObject) -> str:
    """The centre of an object's box as text, "(471, 139)"."""
    left, top, right, bottom = thing.box
    return f"({round((left + right) / 2)}, {round((top + bottom) / 2)})"


def _middle(thing: SceneObject) -> np.ndarray:
    left, top, right, bottom = thing.box
    return np.array([(left + right) // 2, (top + bottom) // 2])


def _area(thing: SceneObject) -> int:
    left, top, right, bottom = thing.box
    return (right - left) * (bottom - top)


def _distance(thing: SceneObject, place: np.ndarray) -> float:
    """From a point to an object's box; 0 inside."""
    left, top, right, bottom = thing.box
    return float(max(left - place[0], place[0] - right, top - place[1], place[1] - bottom, 0))
