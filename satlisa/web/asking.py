"""The model, shared by all sessions: one step of one answer at a time."""

import threading
from collections.abc import Generator
from typing import Any

from satlisa.errors import SatlisaError
from satlisa.inference.api import stream_ask
from satlisa.inference.generation import Answer
from satlisa.web.limits import LONGEST_QUESTION, Limits
from satlisa.web.picture import Picture


class Asker:
    """Asks the model. The lock is held during a step and never between two of them, so that an answer which is
    stopped, or whose reader has left, holds up nobody."""

    def __init__(self, model: Any, limits: Limits) -> None:
        self.model, self._limits = model, limits
        self._lock = threading.Lock()

    @property
    def input_size(self) -> int:
        """Longest side at which the model sees a picture, in pixels."""
        return int(self.model.segmenter.inputs.image_size)

    def ask(self, picture: Picture, prompt: str) -> Generator[str, None, Answer]:
        """Yield the text as it grows; return the answer, its masks on the upright picture.

        Raises:
            SatlisaError: no question, a question that is too long, or what the model refuses.
        """
        if not prompt.strip():
            raise SatlisaError("there is no question; type one, or pick one below the field")
        if len(prompt) > LONGEST_QUESTION:
            raise SatlisaError(f"expected a question of at most {LONGEST_QUESTION:,} characters, found {len(prompt):,}")
        stream = stream_ask(self.model, picture.opened.rgb, prompt.strip(), self._limits.max_new_tokens)
        try:
            while True:
                with self._lock:
                    text = next(stream)
                yield text
        except StopIteration as end:
            answer: Answer = end.value
            return answer
