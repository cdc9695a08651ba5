"""Adapters in a folder on this machine, or one that is mounted."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters.durable import check_inside, read_inside, sync_folder, write_whole
from adapters.location import RECORD, Kept, Signature, left_by_a_writer

log = logging.getLogger("tongues.adapters")


class FolderLocation:
    """A folder for each adapter. What is written is synced, writers of all processes take turns, and links that lead
    out of an adapter's folder are refused."""

    remote, pace_s = False, 0.0

    def __init__(self, path: Path) -> None:
        self.path = path
        self._was_there = False

    def __str__(self) -> str:
        return str(self.path)

    def records(self) -> dict[str, Signature]:
        if not (self._was_there or self.path.exists()):
            return {}  # where adapters will be published; one that was there, and is not any more, is away
        found: dict[str, Signature] = {}
        with os.scandir(self.path) as entries:
            for entry in entries:
                try:
                    record = os.lstat(Path(entry.path, RECORD))
                except OSError:
                    continue
                if entry.name[0] != ".":
                    found[entry.name] = (record.st_mtime_ns, record.st_ino, record.st_size)
        self._was_there = True
        return found

    def read(self, name: str, file: str, max_bytes: int) -> bytes:
        return read_inside(self.path / name, file, max_bytes)

    def prepare(self, name: str) -> None:
        folder = self.path / name
        folder.mkdir(exist_ok=True)
        check_inside(folder)
        sync_folder(self.path)

    def write(self, name: str, file: str, content: bytes) -> None:
        write_whole(self.path / name / file, content)

    def withdraw(self, name: str) -> None:
        check_inside(self.path / name)
        (self.path / name / RECORD).unlink()
        sync_folder(self.path / name)

    def sweep(self, kept: Kept, grace_s: float) -> tuple[Path, ...]:
        deleted: list[Path] = []
        for folder in sorted(self.path.iterdir()):
            if folder.is_symlink() or not folder.is_dir():
                continue
            try:
                deleted += _swept(folder, kept, grace_s)
            except OSError as error:  # of this one alone: of a volume's lost+found, say
                log.warning("old versions stay: %s", error)
        return tuple(deleted)

    @contextmanager
    def writing(self) -> Iterator[None]:
        self.path.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _swept(folder: Path, kept: Kept, grace_s: float) -> Iterator[Path]:
    stay = kept(folder.name, [path.name for path in folder.iterdir()])
    # A record replaced or removed touches the folder: that is when its files stopped being named.
    if stay is None or folder.stat().st_mtime > time.time() - grace_s:
        return
    for path in sorted(folder.iterdir()):
        if _ours(path) and path.name not in stay:
            path.unlink()
            yield path
    if not any(folder.iterdir()):
        folder.rmdir()
        yield folder


def _ours(path: Path) -> bool:
    return left_by_a_writer(path.name) and (path.is_symlink() or path.is_file())
