"""Questions about a scene and their answers: the seven tasks of the demo dataset, each a function of a plan."""

from dataclasses import dataclass, field
from typing import Any

from satlisa.data.synthetic.plan import Plan, SceneObject

_SEGMENT_PROMPTS = ("Segment the buildings", "Segment all buildings in this image", "Show me where the buildings are")
_SETTINGS = {
    "Farmland": "Farmland with fields",
    "Forest": "A dense forest",
    "Residential area": "A residential area",
    "Industrial area": "An industrial area on concrete",
    "Airport": "An airport with a runway",
    "River": "A river through meadows",
    "Desert": "A desert with sand dunes",
}


@dataclass(frozen=True)
class Question:
    """A prompt about a scene and its answer; `metadata` holds the coordinates, 0..1000, if any."""

    task: str
    prompt: str
    answer: str
    metadata: dict[str, Any] = field(default_factory=dict)


def ask_everything(plan: Plan, turn: int) -> list[Question]:
    """The questions about one scene; `turn` rotates the wording and selects caption, VQA or detection."""
    questions = [ask_class(plan), ask_flood(plan)]
    if _buildings(plan):
        questions.append(ask_buildings(plan, turn))
    if plan.objects:
        questions.append(ask_instances(plan))
    rest, third = divmod(turn, 3)
    if third == 0:
        questions.append(ask_caption(plan))
    elif third == 1:
        questions.append(ask_fact(plan, rest))
    else:
        questions.append(ask_box_list(plan) if rest % 2 else ask_object_count(plan))
    return questions


def ask_class(plan: Plan) -> Question:
    """Scene classification."""
    return Question("scene_classification", "Classify this satellite image", plan.scene_class)


def ask_caption(plan: Plan) -> Question:
    """Captioning in one sentence, plus one about a flood."""
    text = _SETTINGS[plan.scene_class]
    if seen := _counts(plan.objects, plan.num_roads):
        text += f"; {seen} can be seen"
    text += ". Part of it is flooded." if plan.flood is not None else "."
    return Question("image_captioning", "Describe this satellite image", text)


def ask_fact(plan: Plan, turn: int) -> Question:
    """Visual question answering: land cover or a yes/no question, in turn."""
    facts = (
        ("What type of land cover is shown?", plan.scene_class),
        ("Are there any buildings?", _yes_no(bool(_buildings(plan)))),
        ("Is there a road?", _yes_no(plan.num_roads > 0)),
        ("Are there more than two buildings?", _yes_no(len(_buildings(plan)) > 2)),
        ("Are there any planes?", _yes_no(any(thing.label == "plane" for thing in plan.objects))),
    )
    prompt, answer = facts[turn % len(facts)]
    return Question("visual_question_answering", prompt, answer)


def ask_object_count(plan: Plan) -> Question:
    """Object detection in words."""
    seen = _counts(plan.objects, plan.num_roads) or "no objects"
    return Question("object_detection", "What objects are visible?", seen[0].upper() + seen[1:])


def ask_box_list(plan: Plan) -> Question:
    """Object detection with boxes [left, top, right, bottom], 0..1000 in tens, in reading order.

    Rounded to tens: a pixel is 4 of these units wide, so the image does not determine the last digit.
    """
    boxes = [{"label": thing.label, "bbox": [round(side / 10) * 10 for side in thing.box]} for thing in plan.objects]
    answer = "; ".join(f"{box['label']} {box['bbox']}" for box in boxes) or "None"
    return Question("object_detection", "List the boxes of all buildings and planes", answer, {"objects": boxes})


def ask_buildings(plan: Plan, turn: int) -> Question:
    """Semantic segmentation of a scene with buildings: one mask for all of them."""
    polygons = [thing.polygon for thing in _buildings(plan)]
    answer = f"I segmented {_number(len(polygons), 'building')} in the image."
    prompt = _SEGMENT_PROMPTS[turn % len(_SEGMENT_PROMPTS)]
    return Question("building_segmentation", prompt, answer, {"polygons": polygons})


def ask_instances(plan: Plan) -> Question:
    """Instance segmentation: one mask for each building and plane."""
    objects = [{"label": thing.label, "polygon": thing.polygon} for thing in plan.objects]
    answer = f"I found {_counts(plan.objects, 0)}."
    return Question("instance_segmentation", "Detect and segment all structures", answer, {"objects": objects})


def ask_flood(plan: Plan) -> Question:
    """Flood assessment; the answer starts with Yes or No."""
    standing = sum(thing.flooded for thing in _buildings(plan))
    if plan.flood is None:
        answer = "No flooding visible"
    else:
        answer = f"Yes, {_number(standing, 'flooded building')} visible" if standing else "Yes, flooding visible"
    return Question("flood_assessment", "Is there flooding visible?", answer)


def _buildings(plan: Plan) -> list[SceneObject]:
    return [thing for thing in plan.objects if thing.label == "building"]


def _counts(objects: tuple[SceneObject, ...], num_roads: int) -> str:
    """ "3 buildings, 1 plane and 2 roads"; "" for nothing."""
    labels = [thing.label for thing in objects] + ["road"] * num_roads
    parts = [_number(labels.count(label), label) for label in ("building", "plane", "road") if label in labels]
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _yes_no(fact: bool) -> str:
    return "Yes" if fact else "No"
