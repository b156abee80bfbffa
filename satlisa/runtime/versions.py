"""Versions of Python and of packages, for a run's record."""

import platform
from importlib.metadata import version


def installed_versions(*packages: str) -> dict[str, str]:
    """The versions by name, Python's first."""
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}
