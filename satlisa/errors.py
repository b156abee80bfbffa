"""The package's exception: one line that says what was expected, what was found, where, and what to do.

Text from other libraries is redacted here before it goes into a message, a log or a report: access tokens are removed.
"""

import os
import re

_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")  # read only to redact them
_SHORTEST_TOKEN = 8  # characters; a shorter value could occur anywhere in a message
_HIDDEN = "***"
_SECRETS = (
    re.compile(r"()hf_(?:(?:oauth|app|jwt)_)?[A-Za-z0-9]{16,}(?:[\w.-]*\w)?"),
    re.compile(r"(\bauthorization['\"]?\s*[:=]\s*['\"]?)(?:\w+\s+)?[^\s'\",;}]+", re.IGNORECASE),
    re.compile(r"(\bbearer\s+)[\w.~+/-]{8,}=*", re.IGNORECASE),
    re.compile(r"([a-z][a-z0-9+.-]*://)[^/\s@'\"]+(?=@)", re.IGNORECASE),
)


class SatlisaError(Exception):
    """Invalid user input (a file, a setting, a row), worded for the user; commands print it as one line."""


def first_line(error: BaseException) -> str:
    """The first line of another library's error message, redacted; its type if the message is empty."""
    return redact((str(error).strip() or type(error).__name__).splitlines()[0])


def redact(text: str) -> str:
    """Replace Hugging Face tokens, authorization headers and passwords in URLs by `***`."""
    for variable in _TOKEN_VARIABLES:
        value = os.environ.get(variable, "").strip()
        if len(value) >= _SHORTEST_TOKEN:
            text = text.replace(value, _HIDDEN)
    for secret in _SECRETS:
        text = secret.sub(rf"\1{_HIDDEN}", text)
    return text
