"""Satellite Omni LISA: questions about satellite images, answered in text and masks.

from satlisa import load_model, generate_text, generate_segmentation, generate_instances
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from satlisa.inference.api import (
        ask,
        generate_instances,
        generate_segmentation,
        generate_text,
        load_model,
        stream_text,
    )

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "ask",
    "generate_instances",
    "generate_segmentation",
    "generate_text",
    "load_model",
    "stream_text",
]

if not TYPE_CHECKING:  # hidden from type checkers, which would take any name for an attribute

    def __getattr__(name: str) -> object:
        """Import torch and transformers when the first function is asked for: `import satlisa` takes milliseconds."""
        if name not in __all__:
            raise AttributeError(f"module 'satlisa' has no attribute '{name}'")
        from satlisa.inference import api

        return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
