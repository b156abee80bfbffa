"""What no request to the page may do, checked before Gradio sees it.

Gradio serves files of its cache, downloads the files of requests that name an address, and has routes for development,
monitoring and proxies. The page needs none of the latter, so that they are closed here: no request reads a file outside
of the page's own folder, or makes this machine call another one.
"""

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from satlisa.web.limits import Limits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_CLOSED = (
    "proxy=", "custom_component/", "vibe-", "process_recording", "run-history", "monitoring", "profiling", "dev/",
    "deep_link", "deep-link", "component_server", "svelte/", "mcp",
)  # fmt: skip
_ROOM = 2**16  # bytes of an upload's request beside the file
_MOST = 2**20  # bytes of any other request
_HEADERS = (
    # What the page loads comes from itself; a browser refuses anything else.
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline';"
        b" img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' blob: data:; worker-src 'self' blob:",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


class Guard:
    """ASGI middleware around Gradio's app. `folder` is the only place that files are served from."""

    def __init__(self, app: App, folder: Path, limits: Limits) -> None:
        self._app, self._folder, self._limits = app, folder.resolve(), limits

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = re.sub("/+", "/", str(scope["path"])).lstrip("/").removeprefix("gradio_api/")
        refusal = self._refusal(path)
        if refusal is None and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            if path.rstrip("/") == "upload":
                most = self._limits.bytes + _ROOM
                receive = _counted(receive, most)
                refusal = _too_long(scope, most)
            else:
                refusal, receive = await _checked(receive)
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        await self._app(scope, receive, _with_headers(send))

    def _refusal(self, path: str) -> tuple[int, str] | None:
        if path.startswith(_CLOSED):
            return 404, "not found"
        for route in ("file=", "file/"):
            if path.startswith(route) and not self._is_own(path.removeprefix(route)):
                return 403, "this file is not served"
        return None

    def _is_own(self, name: str) -> bool:
        """Whether a name is of a file in the page's own folder; an address is of none."""
        try:
            return name.startswith("/") and Path(name).resolve().is_relative_to(self._folder)
        except (OSError, ValueError):
            return False


def _too_long(scope: Message, most: int) -> tuple[int, str] | None:
    """The refusal of a request that says to be longer than `most` bytes."""
    length = dict(scope["headers"]).get(b"content-length", b"0")
    return (413, f"this page takes at most {most:,} bytes") if not length.isdigit() or int(length) > most else None


def _counted(receive: Receive, most: int) -> Receive:
    """What ends a body after `most` bytes, whatever length it said to have."""
    count = 0

    async def limited() -> Message:
        nonlocal count
        message = await receive()
        count += len(message.get("body", b""))
        return message if count <= most else {"type": "http.disconnect"}

    return limited


async def _checked(receive: Receive) -> tuple[tuple[int, str] | None, Receive]:
    """A refusal of a JSON body, or None and what reads the body again."""
    body, is_more = b"", True
    while is_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return (400, "the request is incomplete"), receive
        body, is_more = body + message.get("body", b""), message.get("more_body", False)
        if len(body) > _MOST:
            return (413, f"expected at most {_MOST:,} bytes; pictures are uploaded"), receive
    try:
        names_address = bool(body) and _names_address(json.loads(body))
    except (ValueError, RecursionError):
        return (400, "expected JSON"), receive
    if names_address:
        return (403, "pictures are uploaded; addresses are not fetched"), receive
    return None, _replay(body, receive)


def _names_address(content: Any) -> bool:
    """Whether JSON holds a file whose path is an address, which Gradio would download."""
    if isinstance(content, dict):
        path = content.get("path")
        return (isinstance(path, str) and "://" in path) or any(map(_names_address, content.values()))
    return isinstance(content, list) and any(map(_names_address, content))


def _replay(body: bytes, receive: Receive) -> Receive:
    """What gives a body that was read, and then what follows it."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


def _with_headers(send: Send) -> Send:
    async def forward(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *_HEADERS]
        await send(message)

    return forward


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
