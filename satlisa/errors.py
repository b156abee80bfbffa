"""The package's own exceptions: one line that says what was expected, what was found, where, and what to do.

What other libraries say passes through here on its way into a message, a log or a report, and loses any access token.
"""

import os
import re

_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")  # read to be hidden, not as settings
_SHORTEST_TOKEN = 8  # characters; hiding every "a" because a variable holds "a" would hide the message
_HIDDEN = "***"
_SECRETS = (
    re.compile(r"()hf_(?:(?:oauth|app|jwt)_)?[A-Za-z0-9]{16,}(?:[\w.-]*\w)?"),
    re.compile(r"(\bauthorization['\"]?\s*[:=]\s*['\"]?)(?:\w+\s+)?[^\s'\",;}]+", re.IGNORECASE),
    re.compile(r"(\bbearer\s+)[\w.~+/-]{8,}=*", re.IGNORECASE),
    re.compile(r"([a-z][a-z0-9+.-]*://)[^/\s@'\"]+(?=@)", re.IGNORECASE),
)


class SatlisaError(Exception):
    """A mistake in what the user gave (a file, a setting, a row), worded for the user; commands show it as one line."""


def first_line(error: BaseException) -> str:
    """What another library's error says, for one line of ours: its first line, or its type where it says nothing."""
    return redact((str(error).strip() or type(error).__name__).splitlines()[0])


def redact(text: str) -> str:
    """A text without Hugging Face tokens, authorization headers and passwords in addresses."""
    for variable in _TOKEN_VARIABLES:
        value = os.environ.get(variable, "").strip()
        if len(value) >= _SHORTEST_TOKEN:
            text = text.replace(value, _HIDDEN)
    for secret in _SECRETS:
        text = secret.sub(rf"\1{_HIDDEN}", text)
    return text
