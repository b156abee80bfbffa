"""Which rows a step takes."""

from typing import Any

from satlisa.data.sampler import StreamingSampler


def test_only_the_buffer_is_in_memory() -> None:
    class Source:
        """Counts what was taken from it."""

        taken = 0

        def __iter__(self) -> Any:
            for number in range(10_000):
                Source.taken += 1
                yield {"number": number}

        def skip(self, count: int) -> Any:
            raise AssertionError

    for seen, _ in enumerate(StreamingSampler(Source(), 10_000, 20, 0).rows(0, 0)):
        assert Source.taken <= (seen // 20 + 1) * 20
