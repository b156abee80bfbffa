"""Real chips in every spelling of the columns: each question and answer word by word, and the regions."""

from collections import Counter
from pathlib import Path

import datasets
import pytest

from satlisa.config import DEFAULT_DATASET
from satlisa.data.dataset import COLUMNS, load_rows
from satlisa.data.rows import read_sample
from satlisa.data.sample import Sample

pytestmark = pytest.mark.integration

COUNTS = {
    "train": {
        "scene_classification": 118,
        "building_segmentation": 78,
        "visual_question_answering": 54,
        "image_captioning": 49,
        "instance_segmentation": 43,
    },
    "validation": {
        "scene_classification": 6,
        "building_segmentation": 5,
        "image_captioning": 3,
        "visual_question_answering": 2,
        "instance_segmentation": 2,
    },
}
THINGS = ("land", "road", "water", "vegetation", "building")
QUESTIONS = {
    "scene_classification": {"Classify this satellite image"},
    "building_segmentation": {
        "Segment the buildings",
        "Segment the buildings in this aerial image",
        "Please highlight every building.",
    },
    "visual_question_answering": {f"Is there any {thing} visible in this image?" for thing in THINGS},
    "image_captioning": {"Describe this satellite image"},
    "instance_segmentation": {"Detect and segment all structures"},
}


@pytest.mark.parametrize("split", COUNTS)
def test_real_rows(split: str, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shared_data / "satellite-mini"
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = load_rows(str(folder), split)
    samples = [read_sample(rows[index], index) for index in range(len(rows))]
    assert Counter(sample.task for sample in samples) == COUNTS[split]
    assert {sample.image.size for sample in samples} == {(512, 512)}
    for sample in samples:
        *before, question = sample.turns
        assert question.role == "user" and question.text in QUESTIONS[sample.task], sample.index
        assert [turn.text for turn in before] in ([], ["You are a satellite image analyst."]), sample.index
        assert answer_fits(sample), (sample.index, sample.answer)


def answer_fits(sample: Sample) -> bool:
    """Whether the answer is the annotation's sentence, and the regions are as many as it says."""
    word = sample.answer.split()[2] if sample.task.endswith("_segmentation") else ""
    if sample.task == "instance_segmentation":
        left_out = max(0, int(word) - 32)
        return sample.answer in (f"There are {word} structures.", "There is 1 structure.") and (
            len(sample.regions),
            sample.left_out,
        ) == (int(word) - left_out, left_out)
    if sample.task == "building_segmentation":
        whole = f"I segmented {word} buildings in the image."
        return sample.answer == whole and [len(region) for region in sample.regions] == [int(word)]
    if sample.task == "visual_question_answering":
        return sample.answer in ("Yes", "No") and not sample.regions
    if sample.task == "image_captioning":
        return sample.answer.startswith("A satellite image of Dubai showing ") and not sample.regions
    return sample.answer.casefold() in THINGS and not sample.regions


def test_the_default_dataset_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Builder:
        config = datasets.BuilderConfig()

        def __init__(self, name: str) -> None:
            asked.append(name)

        def download_and_prepare(self) -> None:
            asked.append("download")

        def as_dataset(self) -> datasets.DatasetDict:
            return datasets.DatasetDict({"train": datasets.Dataset.from_dict({name: ["x"] for name in COLUMNS})})

    monkeypatch.setattr(datasets, "load_dataset_builder", Builder)
    assert load_rows(DEFAULT_DATASET, "train")[0]["task"] == "x"
    assert asked == ["rahuldshetty/satellite-multitask-omni", "download"]
