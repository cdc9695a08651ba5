"""The service in a process of its own, as users run it: for benchmarks and end-to-end tests."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import httpx

ROOT = Path(__file__).resolve().parent.parent
_START_S = 300


@contextlib.contextmanager
def serving(
    *options: str,
    log: IO[str] | None = None,
    environment: Mapping[str, str] | None = None,
    command: Sequence[str] = ("app.cli", "serve"),
) -> Iterator[str]:
    """`tongues serve OPTIONS` on a free port until the block ends: its address, once it is ready.

    ``log``: where it writes; this process' own output, if left out. ``command``: a module and its arguments that serve
    in its place and take ``--port`` as it does. Raises ``RuntimeError`` when it ends before it is
    ready, or is not within five minutes.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    called = [sys.executable, "-m", *command, "--port", str(port), *options]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})}
    process = subprocess.Popen(called, cwd=ROOT, stdout=log, stderr=log, env=environment)
    address = f"http://127.0.0.1:{port}"
    try:
        _await_ready(process, address)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def _await_ready(process: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the service ended with status {process.returncode} before it was ready")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{address}/health/ready").status_code == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"the service was not ready within {_START_S} s")
