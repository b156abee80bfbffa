"""The package's own exceptions: one line that says what was expected, what was found, where, and what to do."""


class SatlisaError(Exception):
    """A mistake in what the user gave (a file, a setting, a row), worded for the user; commands show it as one line."""
