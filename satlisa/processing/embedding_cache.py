"""SAM's image embeddings on disk: the encoder is frozen, so each image is encoded once.

`CACHE_SAM=folder python train.py` fills the folder in the first epoch and reads it in later epochs and runs. The name
of an entry is a SHA-256 of the encoder's weights, its preprocessing and precision, and the image's encoded bytes; the
entry repeats it inside, so a wrong hit is impossible. Entries are float16, 2 MB each for SlimSAM. New embeddings are
rounded the same way: a run with a cold cache computes exactly what one with a warm cache computes.
"""

import hashlib
import logging
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from satlisa.errors import SatlisaError
from satlisa.runtime.atomic_files import atomic_replace

logger = logging.getLogger(__name__)
_FORMAT = "satlisa 2"  # part of every name: change it when the meaning of an entry, or of an image's bytes, changes


class EmbeddingCache:
    """A folder of image embeddings that several processes and runs may use at the same time.

    Entries are written atomically. One that cannot be read counts as missing and is replaced. Nothing is ever deleted;
    nothing is added once the folder holds `max_bytes`.

    Args:
        folder: created where it does not exist.
        encoder: the frozen encoder; its weights are part of the entries' names.
        preprocessing: everything else that an embedding depends on, as text.
        max_bytes: size of the folder at which writing stops.
    """

    def __init__(self, folder: str | Path, encoder: nn.Module, preprocessing: str, max_bytes: int) -> None:
        self.folder, self.max_bytes = Path(folder).expanduser(), max_bytes
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.num_bytes = sum(path.stat().st_size for path in self.folder.glob("*/*.safetensors"))
        except OSError as error:
            raise SatlisaError(f"CACHE_SAM: {self.folder} cannot be used ({error}); name a writable folder") from error
        self._encoder_key = _weights_key(encoder, preprocessing)

    def name(self, image_key: str) -> str:
        """The name of an image's entry."""
        return hashlib.sha256(f"{self._encoder_key} {image_key}".encode()).hexdigest()

    def load(self, image_key: str) -> Tensor | None:
        """The embedding (C, e, e) float16 of an image, or None."""
        path = self._path(image_key)
        try:
            with safe_open(path, framework="pt") as entry:
                found: Tensor = entry.get_tensor("image_embedding")
                return found if (entry.metadata() or {}).get("name") == self.name(image_key) else None
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError) as error:  # a truncated file, another program's file
            logger.warning("%s cannot be read and is replaced (%s)", path, error)
            return None

    def store(self, image_keys: list[str], image_embeddings: Tensor) -> Tensor:
        """Write embeddings (S, C, e, e), one per key, up to `max_bytes`; returns them rounded as they are read back.

        A failed write (a full disk) is logged and costs only the entry.
        """
        rounded = image_embeddings.half()
        if self.num_bytes < self.max_bytes:
            for key, embedding in zip(image_keys, rounded.cpu(), strict=True):
                self._write(key, embedding)
        return rounded.to(image_embeddings.dtype)

    def _write(self, image_key: str, embedding: Tensor) -> None:
        path, tensors = self._path(image_key), {"image_embedding": embedding.contiguous()}
        save = partial(save_file, tensors, metadata={"name": self.name(image_key)})
        try:
            path.parent.mkdir(exist_ok=True)
            atomic_replace(path, save, unique=True, durable=False)  # no fsync: an entry can be computed again
            self.num_bytes += path.stat().st_size
        except (OSError, SafetensorError) as error:
            logger.warning("%s cannot be written (%s)", path, error)
        if self.num_bytes >= self.max_bytes:
            logger.warning("CACHE_SAM: %s holds %.1f GB and takes no more", self.folder, self.num_bytes / 1e9)

    def _path(self, image_key: str) -> Path:
        name = self.name(image_key)
        return self.folder / name[:2] / f"{name}.safetensors"


def _weights_key(encoder: nn.Module, preprocessing: str) -> str:
    """A SHA-256 of a module's tensors, with their names and dtypes, and of a text."""
    digest = hashlib.sha256(f"{_FORMAT} {preprocessing}".encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
