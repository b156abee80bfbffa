"""The package's own exceptions: one line that says what was expected, what was found, where, and what to do."""


class SatlisaError(Exception):
    """A mistake in what the user gave (a file, a setting, a row), worded for the user; commands show it as one line."""


def first_line(error: BaseException) -> str:
    """What another library's error says, for one line of ours: its first line, or its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
