"""Last stage of the VLM's pretraining: lists of objects above all, the vision tower frozen.

After the stage before, an answer mostly says the right number of objects, and then lists one too few or one twice,
above all in crowded scenes. Now most questions are those of instance segmentation, in the form that fine-tuning has
for several objects, and three eighths of the pictures are crowded scenes that the stages before have not seen.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset

from satlisa.demo.chips import Chip
from satlisa.demo.fit import Loop, load, moved
from satlisa.demo.gallery import Exhibit
from satlisa.demo.lessons import LessonBatch, Lessons, Writer
from satlisa.demo.place_features import WIDTH, place_features
from satlisa.demo.pretrain_vlm import BATCH_SIZE, Reader, teach
from satlisa.model.delta_net import patch_delta_net

LEARNING_RATE = 8e-4
LIST_SHARE = 0.5  # of the scenes with objects that are not crowded ones
_FITTED_BATCHES = 10
_RIDGE = 0.1


def train_lists(
    model: Any,
    writer: Writer,
    gallery: Sequence[Exhibit],
    crowded: Sequence[Exhibit],
    chips: Sequence[Chip],
    steps: int,
    seed: int,
    loop: Loop,
) -> None:
    """Train the language model of a VLM in place, on its own device."""
    patch_delta_net()
    model.model.visual.requires_grad_(False)
    reader = Reader(model, writer)
    fitted = min(_FITTED_BATCHES, steps)
    places = fit_places(reader, Lessons(writer, gallery, chips, fitted, BATCH_SIZE, seed + 2, single_from=0))
    lessons = Lessons(
        writer, gallery, chips, steps, BATCH_SIZE, seed + 1, single_from=0, list_share=LIST_SHARE, crowded=crowded
    )
    teach("lists", reader, lessons, LEARNING_RATE, places, loop)
    model.model.visual.requires_grad_(True)


@torch.no_grad()
def fit_places(reader: Reader, lessons: Dataset[LessonBatch]) -> nn.Linear:
    """The linear layer that reads an object's place from the state at its marker, by ridge regression."""
    device = reader.model.device
    states, wanted = [], []
    for batch in load(lessons):
        batch = moved(batch, device)
        states.append(reader(batch)[1])
        wanted.append(place_features(batch.marker_boxes, batch.marker_labels))
    inputs = F.pad(torch.cat(states), (0, 1), value=1.0)  # the last column for the bias
    penalty = _RIDGE * torch.eye(inputs.shape[1], device=device)
    solution = torch.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ torch.cat(wanted))
    layer = nn.Linear(inputs.shape[1] - 1, WIDTH).to(device)
    layer.weight.copy_(solution[:-1].T)
    layer.bias.copy_(solution[-1])
    return layer
