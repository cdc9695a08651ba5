"""The app behind a real socket, and requests that no client library would send."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI

from app.main import create_app
from app.server import Server
from app.settings import Settings


@dataclass(frozen=True)
class Live:
    """A running server. ``port`` for raw sockets, ``http`` for everything else."""

    app: FastAPI
    port: int
    http: httpx.Client

    def transcribe(self, data: bytes, query: str = "lang=es", **options: Any) -> httpx.Response:
        return self.http.post(f"/transcribe?{query}", files={"file": ("clip", data)}, **options)

    def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        match = re.search(rf"^{name} (\S+)$", self.http.get("/metrics").text, re.MULTILINE)
        assert match is not None
        return float(match[1])

    def connect(self, head: str) -> socket.socket:
        """A connection on which the head of a request was sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        return connection


def answer(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Status and JSON that came, for a response of less than a packet or two."""
    data = b""
    while b"\r\n\r\n" not in data or not data.endswith(b"}"):
        part = connection.recv(65_536)
        assert part, data
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@contextlib.contextmanager
def serving(settings: Settings, *, ready: bool = True, **options: Any) -> Iterator[Live]:
    """A server for the ``with`` block; ``options`` go to :func:`create_app`."""
    app = create_app(settings, **options)
    server = Server(app, app.state.service, settings.model_copy(update={"port": 0}))
    thread = threading.Thread(target=server.run, name="server")
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as http:
            if ready:
                wait_until(lambda: http.get("/health/ready").status_code == 200)
            yield Live(app, port, http)
    finally:
        server.should_exit = True
        thread.join(timeout=120)
        assert not thread.is_alive()


def wait_until(reached: Any, timeout_s: float = 300) -> None:
    """Poll until ``reached()``."""
    deadline = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
