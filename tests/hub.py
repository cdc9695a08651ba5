"""A model hub on this machine that speaks the hub's own protocol, and misbehaves where a test wants it to.

Repositories are folders, their one commit follows from their content. Weights are "LFS": known by their SHA-256
beforehand.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

Fault = Literal["unavailable", "truncated", "wrong", "cut", "slow", "missing", "huge"]
_LARGE = (".safetensors", ".bin")
_PAGE = 1_000


@dataclass
class Hub:
    """``faults``: by file name, what goes wrong when it is asked for. ``asked``: how often each was got."""

    port: int
    repos: dict[str, Path] = field(default_factory=dict)
    private: dict[str, str] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    bytes_sent: int = 0
    away: bool = False
    slow_s: float = 5.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def commit(self, repo: str) -> str:
        lines = [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in self.paths(repo)]
        return sha1("\n".join(lines).encode()).hexdigest()

    def paths(self, repo: str) -> list[Path]:
        return sorted(path for path in self.repos[repo].iterdir() if path.is_file())

    @contextmanager
    def running(self) -> Iterator[Hub]:
        """Serve until the block ends."""
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def forget(self) -> None:
        """As it was."""
        for part in (self.repos, self.private, self.faults, self.asked):
            part.clear()
        self.away, self.bytes_sent, self.slow_s = False, 0, 5.0


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def _answer(self, *, body: bool) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path).strip("/").split("/")
        if self.hub.away:
            return self._error(503, "the hub is away")
        repo = "/".join(path[2:4] if path[:2] == ["api", "models"] else path[:2])
        if repo not in self.hub.repos:
            return self._error(404, "Repository not found", code="RepoNotFound")
        if repo in self.hub.private and self.headers.get("Authorization") != f"Bearer {self.hub.private[repo]}":
            return self._error(401, "Repository not found", code="RepoNotFound")
        commit = self.hub.commit(repo)
        if path[:2] == ["api", "models"]:
            rest = path[4:]
            if len(rest) > 1 and rest[1] not in ("main", commit):
                return self._error(404, "Invalid rev id", code="RevisionNotFound")
            if rest[:1] in ([], ["revision"]):
                files = [{"rfilename": one.name} for one in self.hub.paths(repo)]
                return self._json({"id": repo, "modelId": repo, "sha": commit, "siblings": files, "tags": []})
            return self._tree(repo, int(parse_qs(parts.query).get("cursor", ["0"])[0]))
        if path[2] != "resolve" or path[3] not in ("main", commit):
            return self._error(404, "Invalid rev id", code="RevisionNotFound")
        return self._file(repo, "/".join(path[4:]), commit, body=body)

    def _tree(self, repo: str, start: int) -> None:
        found = []
        for path in self.hub.paths(repo)[start : start + _PAGE]:
            size = path.stat().st_size
            told: dict[str, Any] = {"type": "file", "path": path.name, "size": size, "oid": _oid(path)}
            if self.hub.faults.get(path.name) == "huge":
                told["size"] = size = 10 * 2**30
            if path.suffix in _LARGE:
                told["lfs"] = {"oid": _digest(path), "size": size, "pointerSize": 134}
            found.append(told)
        more = start + _PAGE < len(self.hub.paths(repo))
        address = f"{self.hub.url}/api/models/{repo}/tree/main?recursive=true&cursor={start + _PAGE}"
        self._json(found, {"Link": f'<{address}>; rel="next"'} if more else {})

    def _file(self, repo: str, name: str, commit: str, *, body: bool) -> None:
        path, fault = self.hub.repos[repo] / name, self.hub.faults.get(name)
        if fault == "unavailable":
            return self._error(503, "try again")
        if fault == "missing" or not path.is_file():
            return self._error(404, "Entry not found", code="EntryNotFound")
        content = path.read_bytes()
        etag = _digest(path) if path.suffix in _LARGE else _oid(path)
        if not body:
            return self._head(200, commit, etag, len(content))
        self.hub.asked[name] += 1
        if fault == "slow":
            time.sleep(self.hub.slow_s)
        size, begin = len(content), 0
        if fault == "wrong":
            content = content[:-64] + bytes(64)
        if asked := self.headers.get("Range"):
            begin = int(asked.removeprefix("bytes=").split("-")[0])
            self._head(206, commit, etag, size - begin, {"Content-Range": f"bytes {begin}-{size - 1}/{size}"})
        else:
            self._head(200, commit, etag, size)
        sent = content[begin:]
        if fault in ("truncated", "cut"):
            sent = sent[: len(sent) // 2]
            if fault == "cut":  # the next try goes on from there
                del self.hub.faults[name]
        self.wfile.write(sent)
        self.hub.bytes_sent += len(sent)
        if fault in ("truncated", "cut"):
            self.wfile.flush()
            self.close_connection = True

    def _head(self, status: int, commit: str, etag: str, length: int, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        headers = {
            "X-Repo-Commit": commit,
            "ETag": f'"{etag}"',
            "Accept-Ranges": "bytes",
            "Content-Length": str(length),
        }
        for key, value in {**headers, **(more or {})}.items():
            self.send_header(key, value)
        self.end_headers()

    def _json(self, data: Any, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(data).encode()
        self.send_response(200)
        for key, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            **(headers or {}),
        }.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(content)

    def _error(self, status: int, message: str, code: str | None = None) -> None:
        content = json.dumps({"error": message}).encode() if self.command == "GET" else b""
        self.send_response(status)
        if code is not None:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


_DIGESTS: dict[tuple[str, int], str] = {}


def _digest(path: Path) -> str:
    key = (str(path), path.stat().st_mtime_ns)
    if key not in _DIGESTS:
        _DIGESTS[key] = sha256(path.read_bytes()).hexdigest()
    return _DIGESTS[key]


def _oid(path: Path) -> str:
    return sha1(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}".encode()).hexdigest()
