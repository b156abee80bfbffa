"""A hub on this machine: the few addresses that creating a repository and committing to it use, over HTTP."""

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import huggingface_hub.constants
import pytest

TOKEN = "hf_" + "k" * 30


@dataclass
class Hub:
    """What it holds, and how it answers.

    Attributes:
        repositories: files by repository.
        private: by repository.
        commits: what each commit said: path → None for a deletion.
        tokens: the authorization of each request.
        refusal: (status, message) of every answer from now on.
        bad_metadata: why README.md is refused, if it is.
    """

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    commits: list[dict[str, bytes | None]] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    refusal: tuple[int, str] | None = None
    bad_metadata: str = ""
    address: str = ""

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if self.refusal:
            return self.refusal[0], {"error": self.refusal[1]}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            errors = [{"message": self.bad_metadata}] if self.bad_metadata else []
            return 400 if errors else 200, {"errors": errors, "warnings": []}
        repo, _, rest = path.removeprefix("/api/models/").partition("/")
        name, _, rest = rest.partition("/")
        repo = f"{repo}/{name}"
        if repo not in self.repositories:
            return 404, {"error": "Repository not found"}
        if rest == "":
            return 200, {"id": repo, "private": self.private[repo], "siblings": []}
        if rest == "tree/main":
            return 200, [{"type": "file", "path": name, "size": 1, "oid": "0"} for name in self.repositories[repo]]
        if rest == "preupload/main":
            names = [item["path"] for item in json.loads(body)["files"]]
            return 200, {"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]}
        if rest == "commit/main":
            return self._commit(repo, body)
        raise AssertionError(f"{method} {path}")

    def _create(self, wanted: dict[str, Any]) -> tuple[int, Any]:
        repo = f"{wanted['organization']}/{wanted['name']}"
        if repo in self.repositories:
            return 409, {"error": "You already created this model repo", "url": f"{self.address}/{repo}"}
        self.repositories[repo] = {".gitattributes": b""}
        self.private[repo] = wanted.get("visibility") == "private" or wanted.get("private") is True
        return 200, {"url": f"{self.address}/{repo}"}

    def _commit(self, repo: str, body: bytes) -> tuple[int, Any]:
        changes: dict[str, bytes | None] = {}
        for line in body.splitlines():
            item = json.loads(line)
            if item["key"] == "file":
                changes[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            elif item["key"] == "deletedFile":
                changes[item["value"]["path"]] = None
        self.commits.append(changes)
        for name, content in changes.items():
            if content is None:
                del self.repositories[repo][name]
            else:
                self.repositories[repo][name] = content
        return 200, {"success": True, "commitOid": "0" * 40, "commitUrl": f"{self.address}/{repo}/commit/{'0' * 40}"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A running hub; `address` is where."""
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.tokens.add(self.headers.get("Authorization"))
            status, content = state.answer(self.command, self.path.partition("?")[0], body)
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def account(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub that is written to, with a token."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub
