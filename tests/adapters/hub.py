"""A hub on loopback that speaks enough of Hugging Face's protocol for its own client to list and read repositories."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants


@dataclass
class Hub:
    """``repositories``: files by path, by ``user/repo``. ``status``: what every request is answered with, but 200.
    ``token``: what requests must bear, if anything. ``asked``: what was."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    status: int = 200
    token: str | None = None
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str, token: str | None) -> tuple[int, bytes, dict[str, str]]:
        self.asked.append(path)
        parts = [unquote(part) for part in path.strip("/").split("/")]
        of_api = parts[:2] == ["api", "models"]
        repository, rest = "/".join(parts[2:4] if of_api else parts[:2]), parts[4:] if of_api else parts[2:]
        files = self.repositories.get(repository)
        if self.status != 200:
            return self.status, b"", {}
        if files is None or token != self.token:
            return 401 if self.token else 404, b"", {"X-Error-Code": "RepoNotFound"}
        if of_api and rest[:1] == ["tree"]:
            below = "/".join(rest[2:])
            return 200, json.dumps([_entry(*one) for one in files.items() if one[0].startswith(below)]).encode(), {}
        if of_api:
            return 200, json.dumps({"id": repository, "sha": "0" * 40}).encode(), {}
        name = "/".join(rest[2:])
        if rest[0] == "resolve" and name in files:
            return 200, files[name], {"ETag": f'"{_entry(name, files[name])["oid"]}"'}
        return 404, b"", {"X-Error-Code": "EntryNotFound"}


def _entry(path: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


@contextmanager
def hub_server() -> Iterator[Hub]:
    """A hub for the ``with`` block, which the client takes for the only one."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            bearer = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
            status, content, headers = hub.answer(urlsplit(self.path).path, bearer)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing: pytest shows what is asked, in :attr:`Hub.asked`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, name="hub")
    thread.start()
    try:
        with pytest.MonkeyPatch.context() as patched:
            address = f"http://127.0.0.1:{server.server_port}"
            # what HF_ENDPOINT would set, were it there when the client is imported
            template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
            patched.setattr(constants, "ENDPOINT", address)
            patched.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
            yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
