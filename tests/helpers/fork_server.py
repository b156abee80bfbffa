"""Scripts as several processes of one run, each a fork of a process that has everything imported already.

`launch` starts them as `torchrun` does. An interpreter of its own takes ten seconds of imports for each process; a fork
takes none. Run as a script this file is the server: a request per line on stdin, a reply per line on stdout.
"""

import atexit
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.helpers.paths import ROOT


@dataclass(frozen=True)
class Launched:
    """What came of a run: 0, or the first exit status that was not; and what its processes said."""

    returncode: int
    said: str


def launch(processes: int, script: str, environ: dict[str, str], timeout: float) -> Launched:
    """Run a script in some processes of one group; when one fails or time is up, all are killed."""
    server = _server()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        request = {"processes": processes, "script": script, "environ": environ, "log": str(log), "timeout": timeout}
        print(json.dumps(request), file=server.stdin, flush=True)
        return Launched(int(server.stdout.readline()), log.read_text(errors="replace"))


@cache
def _server() -> Any:
    server = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    atexit.register(server.kill)
    return server


def _serve() -> None:
    # Imported here: pytest itself only sends requests.
    import accelerate
    import datasets
    import peft  # noqa: F401
    from transformers import Qwen3_5ForConditionalGeneration, SamModel  # noqa: F401

    import satlisa.cli.train
    import satlisa.training.train  # noqa: F401

    assert accelerate and datasets
    replies = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        print(_run(json.loads(line)), file=replies, flush=True)


def _run(request: dict[str, Any]) -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    size = request["processes"]
    group = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    children = {_fork(request, {**group, "RANK": rank, "LOCAL_RANK": rank}) for rank in range(size)}
    until, failed = time.monotonic() + request["timeout"], 0
    while children:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            children.discard(child)
            failed = failed or status
        elif time.monotonic() > until:
            failed = failed or -1
        if failed:
            for other in children:
                os.kill(other, signal.SIGKILL)
                os.waitpid(other, 0)
            break
        time.sleep(0 if child else 0.01)
    return failed


def _fork(request: dict[str, Any], group: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with open(request["log"], "ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        os.environ.clear()
        os.environ.update(request["environ"])
        os.environ.update({name: str(value) for name, value in group.items()})
        sys.argv = [request["script"]]
        try:
            runpy.run_path(request["script"], run_name="__main__")
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
