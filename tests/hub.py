"""A model hub on this machine that speaks the hub's own protocol, and misbehaves where a test wants it to.

Repositories are folders, their one commit follows from their content. Weights are "LFS": known by their SHA-256
beforehand.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import termios
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

Fault = Literal[
    "unavailable", "truncated", "wrong", "cut", "reset", "slow", "trickle", "missing", "huge", "short", "shifted"
]
_LARGE = (".safetensors", ".bin")
_PAGE = 1_000
_AT_ONCE, _EACH_S = 10_000, 0.1


def _bound() -> socket.socket:
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    return bound


@dataclass
class Hub:
    """``bound``: a socket of its own, which nobody listens on yet. ``revisions``: names of each repository's commit
    besides main. ``faults``: by a file's path in its repository, what goes wrong when it is asked for. ``asked``: how
    often each was got; ``requests``: the path of each; ``asked_in_vain``: how many of them were not answered.
    ``status``: what every request is answered with, or ``page`` instead of the hub's answers.

    ``resets``: after how many bytes of a file its next connections are reset. ``held``: after how many the next one
    stands still, until ``released`` is set, and is reset then. ``sent``: the bytes of each file; ``ranges``: where each
    request for a part of one began; ``rangeless``: they are answered with all of it. ``elsewhere``: where large files
    lie, to which the hub redirects; ``xet``: they are in Xet storage besides, which does not answer. ``tokens``: what
    each request for a file came with."""

    bound: socket.socket = field(default_factory=_bound)
    repos: dict[str, Path] = field(default_factory=dict)
    revisions: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    private: dict[str, str] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    requests: list[str] = field(default_factory=list)
    asked_in_vain: int = 0
    sent: Counter[str] = field(default_factory=Counter)
    ranges: list[tuple[str, int]] = field(default_factory=list)
    resets: dict[str, list[int]] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    released: threading.Event = field(default_factory=threading.Event)
    rangeless: bool = False
    elsewhere: Hub | None = None
    xet: bool = False
    tokens: list[str | None] = field(default_factory=list)
    turn: threading.Lock = field(default_factory=threading.Lock)
    status: int = 200
    page: bytes = b""
    slow_s: float = 5.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.bound.getsockname()[1]}"

    @property
    def away(self) -> bool:
        return self.status == 503

    @away.setter
    def away(self, away: bool) -> None:
        self.status = 503 if away else 200

    def commit(self, repo: str) -> str:
        told = ((name, (self.repos[repo] / name).stat()) for name in self.paths(repo))
        return sha1("\n".join(f"{name} {t.st_size} {t.st_mtime_ns}" for name, t in told).encode()).hexdigest()

    def paths(self, repo: str) -> list[str]:
        root = self.repos[repo]
        found = (Path(folder, file) for folder, _, files in os.walk(root) for file in files)
        return sorted(path.relative_to(root).as_posix() for path in found)

    @contextmanager
    def running(self) -> Iterator[Hub]:
        """Serve until the block ends."""
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
        server.socket.close()
        server.socket, server.server_address = self.bound, self.bound.getsockname()
        server.server_activate()
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
        for part in (self.repos, self.revisions, self.private, self.faults, self.asked, self.requests):
            part.clear()
        for counted in (self.sent, self.ranges, self.resets, self.held, self.tokens, self.released):
            counted.clear()
        self.status, self.page, self.asked_in_vain, self.slow_s = 200, b"", 0, 5.0
        self.rangeless, self.elsewhere, self.xet = False, None, False


HUB = Hub()  #: the only one of this process


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
        try:
            self._find(body=body)
        except (BrokenPipeError, ConnectionResetError):  # who asked has seen enough
            self.close_connection = True

    def _find(self, *, body: bool) -> None:
        parts = urlsplit(self.path)
        self.hub.requests.append(parts.path)
        path = [unquote(part) for part in parts.path.strip("/").split("/")]
        if self.hub.status != 200:
            self.hub.asked_in_vain += 1
            return self._error(self.hub.status, "the hub does not answer")
        if self.hub.page:
            return self._content(self.hub.page if body else b"", {"Content-Type": "text/html"})
        of_api = path[:2] == ["api", "models"]
        repo, rest = "/".join(path[2:4] if of_api else path[:2]), path[4:] if of_api else path[2:]
        if rest[:1] == ["resolve"]:
            self.hub.tokens.append(self.headers.get("Authorization"))
        if repo not in self.hub.repos:
            return self._error(404, "Repository not found", code="RepoNotFound")
        if repo in self.hub.private and self.headers.get("Authorization") != f"Bearer {self.hub.private[repo]}":
            return self._error(401, "Repository not found", code="RepoNotFound")
        commit = self.hub.commit(repo)
        if len(rest) > 1 and rest[1] not in {"main", commit, *self.hub.revisions[repo]}:
            return self._error(404, "Invalid rev id", code="RevisionNotFound")
        if of_api and rest[:1] in ([], ["revision"]):
            files = [{"rfilename": name} for name in self.hub.paths(repo)]
            return self._json({"id": repo, "modelId": repo, "sha": commit, "siblings": files, "tags": []})
        if of_api:
            cursor = int(parse_qs(parts.query).get("cursor", ["0"])[0])
            return self._tree(repo, "/".join(rest[2:]), cursor, parts.path)
        if rest[:1] != ["resolve"]:
            return self._error(404, "Entry not found", code="EntryNotFound")
        return self._file(repo, "/".join(rest[2:]), commit, body=body)

    def _tree(self, repo: str, below: str, start: int, asked: str) -> None:
        names = [name for name in self.hub.paths(repo) if not below or name.startswith(f"{below}/")]
        if below and not names:
            return self._error(404, "Entry not found", code="EntryNotFound")
        found = []
        for name in names[start : start + _PAGE]:
            path = self.hub.repos[repo] / name
            size = path.stat().st_size
            told: dict[str, Any] = {"type": "file", "path": name, "size": size, "oid": _oid(path)}
            if self.hub.faults.get(name) == "huge":
                told["size"] = size = 10 * 2**30
            if path.suffix in _LARGE:
                told["lfs"] = {"oid": _digest(path), "size": size, "pointerSize": 134}
                told |= {"xetHash": _digest(path)} if self.hub.xet else {}
            found.append(told)
        more = f"{self.hub.url}{asked}?recursive=true&cursor={start + _PAGE}"
        self._json(found, {"Link": f'<{more}>; rel="next"'} if start + _PAGE < len(names) else {})

    def _file(self, repo: str, name: str, commit: str, *, body: bool) -> None:
        path, fault = self.hub.repos[repo] / name, self.hub.faults.get(name)
        if fault == "unavailable":
            return self._error(503, "try again")
        if fault == "missing" or not path.is_file():
            return self._error(404, "Entry not found", code="EntryNotFound")
        content = path.read_bytes()
        etag = _digest(path) if path.suffix in _LARGE else _oid(path)
        if self.hub.elsewhere is not None and path.suffix in _LARGE:
            linked = {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content))}
            if self.hub.xet:
                linked |= {"X-Xet-Hash": etag, "X-Xet-Refresh-Route": f"{self.hub.url}/no-such-storage"}
            return self._head(302, commit, "", 0, {"Location": self.hub.elsewhere.url + self.path, **linked})
        if not body:
            return self._head(200, commit, etag, len(content))
        self.hub.asked[name] += 1
        if fault == "slow":
            time.sleep(self.hub.slow_s)
        if fault == "wrong":
            content = content[:-64] + bytes(64)
        if fault == "short":
            content = content[:1_000]
        begin = self._begin(name, commit, etag, len(content))
        if begin is None:
            return None
        self._send(name, content[begin:], fault)

    def _begin(self, name: str, commit: str, etag: str, size: int) -> int | None:
        """Send the head; returns what byte the rest begins with, if there is one."""
        asked = self.headers.get("Range")
        begin = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        if asked:
            self.hub.ranges.append((name, begin))
        if not asked or self.hub.rangeless:
            self._head(200, commit, etag, size)
            return 0
        if begin >= size:
            self._head(416, commit, etag, 0, {"Content-Range": f"bytes */{size}"})
            return None
        begin += self.hub.faults.get(name) == "shifted"
        self._head(206, commit, etag, size - begin, {"Content-Range": f"bytes {begin}-{size - 1}/{size}"})
        return begin

    def _send(self, name: str, content: bytes, fault: Fault | None) -> None:
        breaks, held = fault in ("truncated", "cut", "reset"), self.hub.held.pop(name, None)
        if breaks:
            content = content[: len(content) // 2]
            if fault != "truncated":  # the next try finds it whole
                del self.hub.faults[name]
        if self.hub.resets.get(name):
            content, fault, breaks = content[: self.hub.resets[name].pop(0)], "reset", True
        for start in range(0, len(content[:held]), _AT_ONCE):
            piece = content[:held][start : start + _AT_ONCE]
            self.wfile.write(piece)
            with self.hub.turn:
                self.hub.sent[name] += len(piece)
            if fault == "trickle":
                time.sleep(_EACH_S)
                if self.hub.away:  # it takes those along who wait
                    return self._reset()
        if held is not None:
            self.hub.released.wait()
            return self._reset()
        if breaks:
            self.wfile.flush()
            self.close_connection = True
        if fault == "reset":
            while struct.unpack("i", fcntl.ioctl(self.connection, termios.TIOCOUTQ, bytes(4))) != (0,):
                time.sleep(0.001)  # what has not arrived by then never will
            self._reset()

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

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
        self._content(json.dumps(data).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _content(self, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
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
