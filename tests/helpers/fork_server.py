"""Scripts as several processes of one run, each a fork of a process that has everything imported already.

`launch` starts them as `torchrun` does. An interpreter of its own takes ten seconds of imports for each process; a fork
takes none. Run as a script this file is the server: a request per line on stdin, a reply per line on stdout.
"""

import importlib
import json
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.paths import ROOT

_IMPORTED = (
    "accelerate", "datasets", "peft", "transformers.models.qwen3_5.modeling_qwen3_5",
    "transformers.models.sam.modeling_sam", "satlisa.cli.evaluate", "satlisa.cli.train", "satlisa.training.train",
)  # fmt: skip


def launch(
    processes: int, script: str, environ: dict[str, str], timeout: float, arguments: Sequence[str] = ()
) -> "subprocess.CompletedProcess[str]":
    """Run a script in some processes of one group; when one fails or time is up, all are killed.

    The exit status is 0 or the first one that was not (-9: SIGKILL).

    Args:
        environ: variables added to this process's own. What is read at import, OMP_NUM_THREADS among others, is the
            server's: one thread.
    """
    server = _server()
    with tempfile.TemporaryDirectory() as folder:
        request = {
            "processes": processes, "script": script, "arguments": arguments, "environ": {**os.environ, **environ},
            "cwd": os.getcwd(), "folder": folder, "timeout": timeout,
        }  # fmt: skip
        assert server.stdin and server.stdout
        print(json.dumps(request), file=server.stdin, flush=True)
        reply = server.stdout.readline()
        if not reply:
            _server.cache_clear()
            raise RuntimeError(f"the fork server ended with status {server.wait()}")
        written = (Path(folder, name).read_text(errors="replace") for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(script, int(reply), *written)


@cache
def _server() -> subprocess.Popen[str]:
    """Ends when this process does: its stdin is closed then."""
    return subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def _serve() -> None:
    for name in _IMPORTED:
        importlib.import_module(name)
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no reply
    for line in sys.stdin:
        request = json.loads(line)
        children = set()
        for group in _groups(request["processes"]):
            child = os.fork()
            if not child:
                replies.close()
                _become(request, group)
            os.setpgid(child, child)  # here too, so that it is done before any kill
            children.add(child)
        print(_wait(children, request), file=replies, flush=True)


def _groups(size: int) -> list[dict[str, int | str]]:
    """The variables that tell each process its place."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [{**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in range(size)]


def _become(request: dict[str, Any], group: dict[str, int | str]) -> None:
    """Run the script in this process, and leave as an interpreter does."""
    os.setpgid(0, 0)
    os.chdir(request["cwd"])
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        with open(Path(request["folder"], name), "ab") as file:
            os.dup2(file.fileno(), number)
    os.environ.clear()
    os.environ.update(request["environ"])
    os.environ.update({name: str(value) for name, value in group.items()})
    random.seed()
    np.random.seed()
    sys.argv = [request["script"], *request["arguments"]]
    runpy.run_path(request["script"], run_name="__main__")
    sys.exit(0)


def _wait(children: set[int], request: dict[str, Any]) -> int:
    until = time.monotonic() + request["timeout"]
    while children:
        child, status = os.waitpid(-1, os.WNOHANG)
        children.discard(child)
        if child and status == 0:
            continue
        late = time.monotonic() > until
        if late:
            with open(Path(request["folder"], "stderr"), "a", encoding="utf-8") as file:
                file.write(f"killed after {request['timeout']} seconds\n")
        if child or late:
            for other in children:
                os.killpg(other, signal.SIGKILL)
                os.waitpid(other, 0)
            return os.waitstatus_to_exitcode(status) if child else -signal.SIGKILL
        time.sleep(0.01)
    return 0


if __name__ == "__main__":
    _serve()
