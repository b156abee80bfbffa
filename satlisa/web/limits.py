"""What one page allows: sizes of uploads and questions, the queue, and how long anything is kept."""

from dataclasses import dataclass

from satlisa.config import DEFAULT_MAX_NEW_TOKENS
from satlisa.errors import SatlisaError

LONGEST_QUESTION = 2000  # characters
SESSIONS = 64  # whose answers are kept at a time; the oldest is forgotten first


@dataclass(frozen=True)
class Limits:
    """Limits of a page.

    Attributes:
        megabytes: of an uploaded file, in 10^6 bytes.
        megapixels: of its picture, in 10^6 pixels.
        queue: questions and other clicks that may wait.
        minutes: after which uploads, answers and downloads are deleted.
        max_new_tokens: of an answer.
    """

    megabytes: int = 50
    megapixels: float = 24
    queue: int = 16
    minutes: int = 60
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise SatlisaError(f"--{name}: expected a number above 0, found {value}")

    @property
    def bytes(self) -> int:
        """The size of an upload in bytes."""
        return self.megabytes * 10**6

    def check_pixels(self, width: int, height: int, name: str) -> None:
        """Refuse a picture of too many pixels.

        Raises:
            SatlisaError: it has more than `megapixels`.
        """
        if width * height > self.megapixels * 10**6:
            raise SatlisaError(
                f"{name} has {width:,} × {height:,} pixels, and this page takes at most {self.megapixels:g} million; "
                "scale it down, cut it into tiles, or ask about it with inference.py"
            )
