"""SAM's image embeddings on disk: the encoder is frozen, so what it says about an image is computed once.

`CACHE_SAM=folder python train.py` fills the folder in the first epoch and reads it in later epochs and runs. An entry
is named by a SHA-256 over the encoder's weights, its preprocessing and precision, and the image's pixels, and repeats
that name inside, so that a wrong hit is impossible. Entries are float16, 2 MB each for SlimSAM; what was just computed
is rounded the same way, so a run with a cold cache computes what one with a warm cache does.
"""

import hashlib
import logging
import os
import secrets
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from satlisa.errors import SatlisaError

logger = logging.getLogger(__name__)
_FORMAT = "satlisa 1"  # part of every name: change it when the meaning of an entry changes


class EmbeddingCache:
    """A folder of image embeddings that several processes, and several runs, may use at the same time.

    Entries appear whole (written beside their place and renamed) or not at all; one that cannot be read counts as
    missing and is written anew. Nothing is ever removed: once `max_bytes` are reached, nothing is added.

    Args:
        folder: made where it does not exist.
        encoder: the frozen encoder; its weights are part of the entries' names.
        preprocessing: whatever else an embedding depends on, in words.
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
        except (SafetensorError, OSError) as error:  # half a disk page, another program's file
            logger.warning("%s cannot be read and is written anew (%s)", path, error)
            return None

    def store(self, image_keys: list[str], image_embeddings: Tensor) -> Tensor:
        """Write embeddings (S, C, e, e), one per key, while there is room; returns them rounded as they are read back.

        A failed write (a full disk) is reported and costs nothing but the entry.
        """
        rounded = image_embeddings.half()
        if self.num_bytes < self.max_bytes:
            for key, embedding in zip(image_keys, rounded.cpu(), strict=True):
                self._write(key, embedding)
        return rounded.to(image_embeddings.dtype)

    def _write(self, image_key: str, embedding: Tensor) -> None:
        path = self._path(image_key)
        partial = path.with_suffix(f".{secrets.token_hex(8)}.partial")
        try:
            path.parent.mkdir(exist_ok=True)
            save_file({"image_embedding": embedding.contiguous()}, partial, {"name": self.name(image_key)})
            self.num_bytes += partial.stat().st_size
            os.replace(partial, path)
        except (OSError, SafetensorError) as error:
            partial.unlink(missing_ok=True)
            logger.warning("%s cannot be written (%s)", path, error)
        if self.num_bytes >= self.max_bytes:
            logger.warning("CACHE_SAM: %s holds %.1f GB and takes no more", self.folder, self.num_bytes / 1e9)

    def _path(self, image_key: str) -> Path:
        name = self.name(image_key)
        return self.folder / name[:2] / f"{name}.safetensors"


def _weights_key(encoder: nn.Module, preprocessing: str) -> str:
    """A SHA-256 over a module's tensors, their names and types, and a text."""
    digest = hashlib.sha256(f"{_FORMAT} {preprocessing}".encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
