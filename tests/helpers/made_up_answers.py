"""Questions about a drawn image, and made-up answers."""

import io
import json
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
from PIL import Image

from satlisa.inference.generation import Answer

WIDTH, HEIGHT = 40, 20


MODEL: Any = SimpleNamespace(
    config=SimpleNamespace(seg_token="<SEG>", max_instances=3, dataset="their-dataset"), device="cpu"
)


LEFT_HALF = [[0, 0], [500, 0], [500, 1000], [0, 1000]]


SCENE = ("scene_classification", "Classify this satellite image", "Forest", None)


FLOOD = ("flood_assessment", "Is there flooding visible?", "Yes, 2 flooded buildings visible", None)


BUILDINGS = ("building_segmentation", "Segment the buildings", "Here they are.", [LEFT_HALF])


NO_BUILDINGS = ("building_segmentation", "Segment the buildings", "There are none.", None)


# four columns of 4 pixels, one more than `max_instances`
COLUMNS = [[[x, 0], [x + 100, 0], [x + 100, 1000], [x, 1000]] for x in (0, 200, 400, 600)]


INSTANCES = ("instance_segmentation", "Detect and segment all structures", "Four structures.", COLUMNS)


Question = tuple[str, str, str, Any]


def row(task: str, prompt: str, expected: str, polygons: Any) -> dict[str, Any]:
    png = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 60)).save(png, format="PNG")
    turns = [{"role": "user", "content": f"<image>\n{prompt}"}, {"role": "assistant", "content": expected}]
    return {
        "task": task,
        "source": "drawn",
        "image": {"bytes": png.getvalue(), "path": None},
        "conversations": json.dumps(turns),
        "metadata": json.dumps({"polygons": polygons} if polygons else {}),
    }


def make_rows(*questions: Question) -> Any:
    return datasets.Dataset.from_list([row(*question) for question in questions])


def reply(text: str, *masks: np.ndarray) -> Answer:
    stacked = np.stack(masks) if masks else np.zeros((0, HEIGHT, WIDTH), dtype=bool)
    return Answer(text=text, masks=stacked, scores=np.ones(len(masks), dtype=np.float32), token_ids=[])


def columns(start: int, stop: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[:, start:stop] = True
    return mask


def answering(replies: dict[str, Answer], sizes: list[int] | None = None) -> Callable[..., list[Answer]]:
    """A stand-in for `generation.answer` that knows a reply per prompt; a prompt it does not know raises."""

    def answer_fn(
        model: Any,
        images: Sequence[Image.Image],
        prompts: Sequence[Any],
        *,
        max_new_tokens: int,
        batch_size: int,
    ) -> list[Answer]:
        assert model is MODEL and batch_size == len(prompts)
        assert all(image.size == (WIDTH, HEIGHT) and image.mode == "RGB" for image in images)
        if sizes is not None:
            sizes.append(len(prompts))
        return [replies[turns[-1].text] for turns in prompts]

    return answer_fn


REPLIES = {
    SCENE[1]: reply("forest."),
    FLOOD[1]: reply("No"),
    BUILDINGS[1]: reply("Here <SEG>", columns(0, 30)),
    INSTANCES[1]: reply("<SEG> <SEG>", columns(0, 4), columns(8, 12)),
}
