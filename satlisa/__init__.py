"""Satellite Omni LISA: questions about satellite images, answered in text and masks."""

__version__ = "0.1.0"
