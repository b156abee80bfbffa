"""Decoding: prompts → token ids and the states at `<SEG>`, one token per row and step.

Rows are left-padded; finished rows leave the batch. The state at a `<SEG>` is the hidden state of the step that reads
the token. It is kept while decoding, so no second forward pass and no hidden states of other layers are needed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from satlisa.errors import SatlisaError
from satlisa.model.satlisa import SatLisa
from satlisa.processing.chat import Prompt


@dataclass(frozen=True)
class Generated:
    """Token ids of one row without the end token, and the states (n, D) at its `<SEG>` tokens."""

    token_ids: list[int]
    seg_states: Tensor


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen.

    Attributes:
        temperature: 0: the most likely token (greedy); above: drawn from softmax(logits / temperature).
        seed: of the draws. The same seed, prompt and image give the same answer, whatever else is in the batch. None:
            another answer each time.

    Raises:
        SatlisaError: the temperature is negative or not finite, or the seed is not a whole number from 0 to 2⁶³ - 1.
    """

    temperature: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        number = self.temperature
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < math.inf:
            raise SatlisaError(f"temperature: expected 0 (greedy) or a positive number, found {number!r}")
        if self.seed is not None and (type(self.seed) is not int or not 0 <= self.seed < 2**63):
            raise SatlisaError(f"seed: expected a whole number from 0 to 2**63 - 1, or None, found {self.seed!r}")

    def generator(self) -> torch.Generator:
        """The source of one row's draws, on the CPU: the same numbers on every device."""
        source = torch.Generator()
        if self.seed is None:
            source.seed()
        else:
            source.manual_seed(self.seed)
        return source


GREEDY = Sampling()


class Decoding:
    """Answers of B prompts as they grow. Greedy decoding equals `transformers`' `generate(do_sample=False)`.

    Call `step` under `torch.inference_mode()` and the model's autocast, as the constructor.

    Attributes:
        token_ids: of each prompt the ids so far, without the end token.
    """

    def __init__(
        self, model: SatLisa, prompts: Sequence[Prompt], max_new_tokens: int, sampling: Sampling = GREEDY
    ) -> None:
        self.token_ids: list[list[int]] = [[] for _ in prompts]
        self._seg_states: list[list[Tensor]] = [[] for _ in prompts]
        self._model, self._left, self._sampling = model, max_new_tokens, sampling
        self._draws = [sampling.generator() for _ in prompts] if sampling.temperature else []
        self._ends = _end_tokens(model)
        self._rows = list(range(len(prompts)))  # prompt index of each batch row
        input_ids, attention_mask, position_ids = (
            t.to(model.device) for t in _pad_left(prompts, model.processor.tokenizer.pad_token_id)
        )
        self._cache = DynamicCache(config=model.qwen.config.text_config)
        embeddings = model.embed(input_ids, _image_features(model, prompts))
        self._hidden = model.run_text(embeddings, attention_mask, position_ids, self._cache)[:, -1]  # (B, D)
        self._attention_mask = attention_mask
        # (3, B, 1), the last position used
        self._position_ids = position_ids.amax(dim=(0, 2), keepdim=True).expand(3, -1, 1)

    def step(self) -> bool:
        """Choose the next token of each row that has not ended; returns whether any row goes on.

        If the last token is a `<SEG>`, it is read as well, to obtain its state.
        """
        seg = self._model.seg_token_id
        token = self._choose(self._model.head.logits(self._hidden))  # (B,)
        chosen = token.tolist()  # the only device synchronization of a step
        for row, token_id in zip(self._rows, chosen, strict=True):
            if token_id not in self._ends:
                self.token_ids[row].append(token_id)
        self._left -= 1
        kept = [n for n, t in enumerate(chosen) if t == seg or (t not in self._ends and self._left)]
        if not kept:
            return False
        if len(kept) < len(self._rows):
            index = torch.tensor(kept, device=token.device)
            self._cache.reorder_cache(index)
            token, self._attention_mask = token[index], self._attention_mask[index]
            self._position_ids = self._position_ids[:, index]
            self._rows = [self._rows[n] for n in kept]
        self._read(token)
        for place, row in enumerate(self._rows):
            if self.token_ids[row][-1] == seg:
                self._seg_states[row].append(self._hidden[place])
        return self._left > 0

    def found(self) -> list[Generated]:
        """Of each prompt, what it has so far."""
        empty = self._hidden.new_empty(0, self._hidden.shape[-1])
        return [
            Generated(ids, torch.stack(states) if states else empty)
            for ids, states in zip(self.token_ids, self._seg_states, strict=True)
        ]

    def _read(self, token: Tensor) -> None:
        """Run the language model over one token (B,) per row."""
        mask = self._attention_mask
        self._attention_mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        self._position_ids = self._position_ids + 1
        embeddings = self._model.embed(token[:, None])
        self._hidden = self._model.run_text(embeddings, self._attention_mask, self._position_ids, self._cache)[:, 0]

    def _choose(self, logits: Tensor) -> Tensor:
        """Tokens (B,) from logits (B, V)."""
        if not self._draws:
            return logits.argmax(dim=-1)
        # The most likely token has logit 0, so that no temperature overflows; one uniform number per row picks from
        # the cumulative sum.
        exact = logits.float().cpu().double()  # float64, which not every device has
        scaled = (exact - exact.amax(dim=-1, keepdim=True)) / self._sampling.temperature
        cumulative = scaled.softmax(dim=-1).cumsum(dim=-1)  # (B, V)
        numbers = [torch.rand((), generator=self._draws[row], dtype=torch.float64) for row in self._rows]
        drawn = torch.searchsorted(cumulative, torch.stack(numbers)[:, None] * cumulative[:, -1:], right=True)
        return drawn[:, 0].clamp(max=logits.shape[-1] - 1).to(logits.device)


def generate(
    model: SatLisa, prompts: Sequence[Prompt], max_new_tokens: int, sampling: Sampling = GREEDY
) -> list[Generated]:
    """Decode B prompts to their ends, or to `max_new_tokens` tokens each."""
    decoding = Decoding(model, prompts, max_new_tokens, sampling)
    while decoding.step():
        pass
    return decoding.found()


def _image_features(model: SatLisa, prompts: Sequence[Prompt]) -> Tensor:
    """Image tokens of all prompts, concatenated; each distinct image is encoded once."""
    distinct = {id(prompt.pixel_values): prompt for prompt in prompts}
    numbers = {key: number for number, key in enumerate(distinct)}
    return model.image_features(
        torch.cat([prompt.pixel_values for prompt in distinct.values()]).to(model.device),
        torch.cat([prompt.image_grid_thw for prompt in distinct.values()]).to(model.device),
        [numbers[id(prompt.pixel_values)] for prompt in prompts],
    )


def _pad_left(prompts: Sequence[Prompt], pad_token_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """input_ids, attention_mask (B, T) and position_ids (3, B, T), left-padded to the longest prompt."""
    length = max(len(prompt.input_ids) for prompt in prompts)
    input_ids = torch.full((len(prompts), length), pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    position_ids = torch.zeros(3, *input_ids.shape, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        own = slice(length - len(prompt.input_ids), None)
        input_ids[row, own] = prompt.input_ids
        attention_mask[row, own] = 1
        position_ids[:, row, own] = prompt.position_ids
    return input_ids, attention_mask, position_ids


def _end_tokens(model: SatLisa) -> set[int]:
    """Ids of end tokens: the tokenizer's and those of the model's generation config."""
    configured = model.qwen.generation_config.eos_token_id
    ends: set[int] = {model.processor.tokenizer.eos_token_id}
    ends |= set(configured if isinstance(configured, list) else [configured]) - {None}
    return ends
