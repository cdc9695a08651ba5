"""Copies on this machine of what lies in a remote location."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path, PurePath

from adapters.durable import write_whole
from adapters.location import Kept, Location, Signature

log = logging.getLogger("tongues.adapters")

_NAMED_BY_CONTENT = re.compile(r"[a-z]+-([0-9a-f]{16})\.[a-z.]+")
_COPY = re.compile(rf"\.?{_NAMED_BY_CONTENT.pattern}(\.[0-9a-f]{{16}})?")  # or what a killed process left of one
_OF_A_STORE = re.compile(r"[0-9a-f]{16}")


class CachedLocation:
    """A location of whose files, but for records, copies are kept in a folder: ``max_bytes`` of them, those that were
    read last. Several processes may share the folder, which may be deleted at any time.

    A copy is read only if it holds what its name says. A writer reads what was really written.
    """

    remote = True

    def __init__(self, location: Location, folder: Path, max_bytes: int) -> None:
        self._location, self._all, self._max_bytes = location, folder, max_bytes
        self._folder = folder / sha256(str(location).encode()).hexdigest()[:16]
        self._of_this_thread = threading.local()

    def __str__(self) -> str:
        return str(self._location)

    @property
    def pace_s(self) -> float:
        return self._location.pace_s

    def records(self) -> dict[str, Signature]:
        return self._location.records()

    def read(self, name: str, file: str, max_bytes: int) -> bytes:
        if not _NAMED_BY_CONTENT.fullmatch(file) or getattr(self._of_this_thread, "writes", False):
            return self._location.read(name, file, max_bytes)
        content = self._kept(file, max_bytes)
        if content is None:
            content = self._location.read(name, file, max_bytes)
            if len(content) <= self._max_bytes and _as_named(file, content):
                self._keep(file, content)
        return content

    def prepare(self, name: str) -> None:
        self._location.prepare(name)

    def write(self, name: str, file: str, content: bytes) -> None:
        self._location.write(name, file, content)

    def withdraw(self, name: str) -> None:
        self._location.withdraw(name)

    def sweep(self, kept: Kept, grace_s: float) -> tuple[PurePath, ...]:
        return self._location.sweep(kept, grace_s)

    @contextmanager
    def writing(self) -> Iterator[None]:
        with self._location.writing():
            self._of_this_thread.writes = True
            try:
                yield
            finally:
                self._of_this_thread.writes = False

    def _kept(self, file: str, max_bytes: int) -> bytes | None:
        path = self._folder / file
        try:
            if path.stat().st_size > max_bytes:
                return None
            content = path.read_bytes()
            if not _as_named(file, content):
                path.unlink()
                return None
            os.utime(path)
        except OSError:
            return None
        return content

    def _keep(self, file: str, content: bytes) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._folder / file, content)
            self._make_room()
        except OSError as error:
            log.warning("no copy of %s is kept: %s", file, error)

    def _make_room(self) -> None:
        """Of all stores. What else lies in the folder is not ours."""
        copies = []
        for path in self._all.glob("*/*"):
            if _COPY.fullmatch(path.name) and _OF_A_STORE.fullmatch(path.parent.name):
                with contextlib.suppress(FileNotFoundError):  # another process makes room, too
                    copies.append((path.lstat(), path))
        size = sum(stat.st_size for stat, _ in copies)
        for stat, path in sorted(copies, key=lambda copy: copy[0].st_mtime_ns):
            if size <= self._max_bytes:
                return
            path.unlink(missing_ok=True)
            size -= stat.st_size


def _as_named(file: str, content: bytes) -> bool:
    named = _NAMED_BY_CONTENT.fullmatch(file)
    return named is not None and sha256(content).hexdigest().startswith(named[1])
