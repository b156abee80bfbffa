from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from satlisa.errors import SatlisaError
from satlisa.inference.api import ask, load_model
from satlisa.inference.generation import Answer
from satlisa.web.asking import Asker
from satlisa.web.limits import Limits
from satlisa.web.picture import read_picture
from tests.helpers.model_fixtures import picture


@pytest.fixture(scope="module")
def asker(model_dirs: dict[str, Path]) -> Asker:
    return Asker(load_model(model_dirs["masks"], "cpu"), Limits(max_new_tokens=4))


def opened(folder: Path, width: int) -> Any:
    picture(width, 40).save(folder / f"{width}.png")
    return read_picture(folder / f"{width}.png", Limits())


def finished(stream: Generator[str, None, Answer]) -> Answer:
    while True:
        try:
            next(stream)
        except StopIteration as end:
            return end.value


@pytest.mark.integration
def test_two_answers_at_a_time_are_those_of_each_alone(asker: Asker, tmp_path: Path) -> None:
    pictures = [opened(tmp_path, width) for width in (50, 64)]
    streams = [asker.ask(one, "Segment") for one in pictures]
    for _ in range(2):
        for stream in streams:
            next(stream)
    for one, stream in zip(pictures, streams, strict=True):
        alone, found = ask(asker.model, one.opened.rgb, "Segment", 4), finished(stream)
        assert found.text == alone.text and found.num_segs > 1
        assert np.array_equal(found.masks, alone.masks) and np.array_equal(found.scores, alone.scores)


@pytest.mark.integration
def test_an_answer_that_nobody_reads_holds_up_nobody(asker: Asker, tmp_path: Path) -> None:
    left = asker.ask(opened(tmp_path, 50), "Segment")
    next(left)
    assert finished(asker.ask(opened(tmp_path, 64), "Segment")).num_segs > 0
    left.close()


def test_questions_are_checked(tmp_path: Path) -> None:
    asker = Asker(None, Limits())
    with pytest.raises(SatlisaError, match="there is no question"):
        next(asker.ask(opened(tmp_path, 50), " "))
    with pytest.raises(SatlisaError, match="at most 2,000 characters, found 2,001"):
        next(asker.ask(opened(tmp_path, 50), "x" * 2001))
