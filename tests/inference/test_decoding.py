"""Sampled answers: their distribution, their seed, and what is refused."""

from collections import Counter
from typing import Any

import pytest
import torch

from satlisa.errors import SatlisaError
from satlisa.inference.decoding import Decoding, Sampling
from satlisa.inference.generation import answer
from satlisa.model.satlisa import SatLisa
from tests.helpers.model_fixtures import make_samples


def draw(logits: torch.Tensor, sampling: Sampling, times: int) -> list[list[int]]:
    """Choices of a decoding whose model always gives the same logits (B, V)."""
    decoding = object.__new__(Decoding)
    decoding._rows, decoding._sampling = list(range(len(logits))), sampling
    decoding._draws = [sampling.generator() for _ in logits] if sampling.temperature else []
    return [decoding._choose(logits).tolist() for _ in range(times)]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_tokens_are_drawn_as_often_as_softmax_says(temperature: float) -> None:
    logits = torch.tensor([[1.0, 0.0, -1.0, 2.0, float("-inf")]])
    expected = (logits / temperature).softmax(-1)[0]
    times = 4000
    found = Counter(row[0] for row in draw(logits, Sampling(temperature, seed=1), times))
    for token, share in enumerate(expected.tolist()):
        assert abs(found[token] / times - share) < 4 * (share * (1 - share) / times) ** 0.5 + 1e-9


def test_a_temperature_near_zero_is_greedy_and_does_not_overflow() -> None:
    logits = torch.tensor([[3.0, 3.001, -5.0], [9.0, 1.0, 8.0]])
    assert draw(logits, Sampling(1e-300, seed=0), 20) == draw(logits, Sampling(), 20) == [[1, 0]] * 20


@pytest.mark.integration
def test_a_seed_repeats_an_answer_whatever_else_is_in_the_batch(tiny_model: SatLisa) -> None:
    torch.manual_seed(3)
    with torch.no_grad():
        tiny_model.qwen.get_input_embeddings().weight.normal_(std=0.3)
    samples = make_samples(4)

    def ids(chosen: list[int], **options: Any) -> list[list[int]]:
        images, prompts = [samples[n].image for n in chosen], [samples[n].turns for n in chosen]
        found = answer(tiny_model, images, prompts, max_new_tokens=6, sampling=Sampling(20.0, **options))
        return [a.token_ids for a in found]

    together = ids([0, 1, 2, 3], seed=5)
    assert together == ids([0, 1, 2, 3], seed=5) == [ids([n], seed=5)[0] for n in range(4)]
    assert together != ids([0, 1, 2, 3], seed=6)
    assert ids([0, 1, 2, 3]) != ids([0, 1, 2, 3])


@pytest.mark.parametrize("temperature", [-0.1, float("nan"), float("inf"), "1", True, None])
def test_temperatures_that_mean_nothing_are_refused(temperature: Any) -> None:
    with pytest.raises(SatlisaError, match="temperature: expected 0 \\(greedy\\) or a positive number, found"):
        Sampling(temperature)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, "1", True])
def test_seeds_that_mean_nothing_are_refused(seed: Any) -> None:
    with pytest.raises(SatlisaError, match="seed: expected a whole number"):
        Sampling(1.0, seed)
