"""transformers' implementation of Qwen3.5, or the version that has it."""

import transformers

from satlisa.errors import SatlisaError

NEEDED = "transformers>=5.17,<6"  # as in requirements.txt, which an installed package does not have
try:
    from transformers.models.qwen3_5 import modeling_qwen3_5
except ImportError as error:
    raise SatlisaError(
        f"transformers {transformers.__version__} has no Qwen3.5; install {NEEDED}: pip install '{NEEDED}'"
    ) from error

__all__ = ["NEEDED", "modeling_qwen3_5"]
