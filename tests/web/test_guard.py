"""Requests that try to read files of the machine, to call other machines, or to fill it."""

import http.client
import http.server
import json
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from satlisa.web.guard import _names_address

pytestmark = pytest.mark.integration
SECRET = secrets.token_hex(16)


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("private") / "secret.png"
    path.write_text(SECRET)
    return path


@pytest.fixture(scope="module")
def neighbour() -> Iterator[tuple[str, list[str]]]:
    """Another server of this machine: its address, and the requests that reached it."""
    reached: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reached.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(SECRET.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/image.png", reached
    server.shutdown()


def request(served: Any, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, str]:
    """Status and body; the path goes out as it is, also with `..`."""
    connection = http.client.HTTPConnection(urlsplit(served.local_url).netloc, timeout=30)
    try:
        connection.request(method, path, body or None, {name.replace("_", "-"): text for name, text in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def post(served: Any, path: str, content: Any) -> tuple[int, str]:
    return request(served, "POST", path, json.dumps(content).encode(), Content_Type="application/json")


def own_file(served: Any) -> str:
    """The path of a picture that the page itself shows."""
    gallery = next(part for part in served.config["components"] if part["type"] == "gallery")
    return str(gallery["props"]["value"][0]["image"]["path"])


def outcome(served: Any, file: Any, prompt: str = "Segment") -> str:
    """What comes of asking about a file that a request names: the body of a refusal, or the messages of the event."""
    status, body = post(served, "/gradio_api/call/ask", {"data": [file, prompt, 0.4]})
    if status != 200:
        return body
    return request(served, "GET", f"/gradio_api/call/ask/{json.loads(body)['event_id']}")[1]


@pytest.mark.parametrize("route", ["/gradio_api/file=", "/file=", "/gradio_api/file/", "/gradio_api//file=", "//file="])
def test_files_of_the_machine_are_not_served(
    served: Any, secret: Path, model_dirs: dict[str, Path], route: str
) -> None:
    climbing = f"{Path(own_file(served)).parent}/{'../' * 12}{str(secret).lstrip('/')}"
    config = model_dirs["masks"] / "model_config.json"
    for path in (str(secret), str(config), "/etc/passwd", climbing, "../pyproject.toml", "pyproject.toml", "~/.bashrc"):
        for written in (path, quote(path, safe=""), quote(quote(path, safe=""), safe="")):
            status, body = request(served, "GET", route + written)
            assert status >= 400 and SECRET not in body and "root:" not in body, (route + written, status)


def test_own_files_are_served(served: Any) -> None:
    assert request(served, "GET", "/gradio_api/file=" + own_file(served))[0] == 200


@pytest.mark.parametrize(
    "prefix", ["/static/", "/assets/", "/gradio_api/custom_component/gradio/server/file/", "/svelte/"]
)
def test_no_way_out_of_the_folders_of_gradio(served: Any, secret: Path, prefix: str) -> None:
    for up in ("../" * 14, "..%2f" * 14, "%2e%2e/" * 14, "/"):
        status, body = request(served, "GET", prefix + up + str(secret).lstrip("/"))
        assert status >= 400 and SECRET not in body


@pytest.mark.parametrize("meta", [{"_type": "gradio.FileData"}, {}])
def test_a_path_of_the_server_is_no_picture(served: Any, secret: Path, meta: dict[str, str]) -> None:
    for path in (str(secret), "/etc/passwd", "pyproject.toml", "../../etc/passwd"):
        said = outcome(served, {"path": path, "meta": meta})
        assert "event: complete" not in said
        assert SECRET not in said and "root:" not in said and "Traceback" not in said
        assert str(Path.cwd()) not in said


def test_addresses_are_not_fetched(served: Any, neighbour: tuple[str, list[str]]) -> None:
    address, reached = neighbour
    meta = {"_type": "gradio.FileData"}
    files = [
        {"path": address, "meta": meta},
        {"path": "x.png", "url": address, "meta": meta},
        {"path": "", "url": address, "meta": meta},
        {"path": address.upper().replace("HTTP", "http"), "meta": meta, "is_stream": False},
        address,
        {"path": {"path": address, "meta": meta}, "meta": meta},
    ]
    for file in files:
        assert "event: complete" not in outcome(served, file)
    for path in ("/gradio_api/file=", "/file=", "/gradio_api/proxy=", "/proxy=", "/gradio_api/file%3D"):
        assert request(served, "GET", path + address)[0] >= 400
        assert request(served, "GET", path + quote(address, safe=""))[0] >= 400
    assert reached == []


def test_names_of_addresses_are_seen_in_any_writing() -> None:
    assert _names_address(json.loads('{"data": [{"path": "\\u0068ttp://a"}]}'))
    assert not _names_address({"data": [{"path": "/own/file.png", "url": "http://127.0.0.1/file=/own/file.png"}]})


def test_requests_have_limits(served: Any) -> None:
    assert request(served, "POST", "/gradio_api/upload", b"x" * 1_100_000, Content_Type="multipart/form-data")[0] == 413
    assert post(served, "/gradio_api/queue/join", {"data": ["x" * 1_100_000]})[0] == 413
    assert request(served, "POST", "/gradio_api/queue/join", b"{", Content_Type="application/json")[0] == 400
    assert request(served, "POST", "/gradio_api/queue/join", b"[" * 100_000)[0] == 400


def test_a_length_that_is_not_said_is_counted(served: Any) -> None:
    """Chunked requests, as some proxies make them."""
    connection = http.client.HTTPConnection(urlsplit(served.local_url).netloc, timeout=30)
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    start = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    for size, is_taken in ((1000, True), (1_200_000, False)):
        body = [start, b"p" * size, b"\r\n--x--\r\n"]
        try:
            connection.request("POST", "/gradio_api/upload", iter(body), form, encode_chunked=True)
            status = connection.getresponse().status
        except (ConnectionError, http.client.HTTPException):
            status = 400
        assert (status == 200) is is_taken, status
        connection.close()


def test_routes_of_development_are_closed(served: Any) -> None:
    for path in ("monitoring", "gradio_api/vibe-code", "gradio_api/run-history/records", "gradio_api/profiling/traces"):
        assert request(served, "GET", f"/{path}")[0] in (404, 405)


def test_the_page_may_load_from_itself_alone(served: Any) -> None:
    connection = http.client.HTTPConnection(urlsplit(served.local_url).netloc, timeout=30)
    connection.request("GET", "/")
    policy = connection.getresponse().headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy
