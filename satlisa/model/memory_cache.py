"""Outputs of the frozen encoders in memory: an image is encoded once, whatever rows and epochs it returns in."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor


class MemoryCache:
    """Tensors by name, on their device, up to `max_bytes`; after that nothing is added and nothing removed.

    In shuffled epochs each image is as likely to come next as any other, so that replacing entries would gain nothing.

    Attributes:
        num_bytes: size of what is kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.num_bytes = max_bytes, 0
        self._kept: dict[tuple[str, str], Tensor] = {}

    def recall_each(
        self, encoder: str, image_keys: Sequence[str], encode: Callable[..., Tensor], *inputs: Sequence[Tensor]
    ) -> list[Tensor]:
        """`recall` of each image; `inputs` are the arguments of `encode`, each a sequence over the images."""
        each = zip(image_keys, *inputs, strict=True)
        return [self.recall(encoder, key, partial(encode, *arguments)) for key, *arguments in each]

    def recall(self, encoder: str, image_key: str, encode: Callable[[], Tensor]) -> Tensor:
        """The output of an encoder for an image: what is kept of it, else that of `encode`, which is then kept.

        `encode` is given one image at a time. Its output therefore never depends on what else is in a batch, and a
        resumed run, whose cache is empty, computes what an uninterrupted one does.
        """
        name = encoder, image_key
        if name not in self._kept:
            output = encode()
            if self.num_bytes + output.nbytes > self.max_bytes:
                return output
            self._kept[name] = output
            self.num_bytes += output.nbytes
        return self._kept[name]
