"""Files of an adapter: they appear whole or not at all, stay after a crash, and lie in its folder alone."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters.errors import AdapterFormatError


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An ``OSError`` that names no file, as that of a full disk, names this one."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_whole(path: Path, content: bytes) -> None:
    """Appear whole or not at all: synced under a name that nothing reads, then renamed."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """What was created, renamed or deleted in ``folder`` is on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_inside(folder: Path, file: str, max_bytes: int) -> bytes:
    """The content of a regular file in the folder of an adapter, which bears its name.

    Raises :class:`~adapters.errors.AdapterFormatError` for a link that leaves the folder, ``OSError`` for what is no
    file or larger than ``max_bytes``.
    """
    path = folder / file
    check_inside(folder, path)
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise OSError("not a regular file")
    with path.open("rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        if size > max_bytes:
            raise OSError(f"{size} bytes, and at most {max_bytes} were expected")
        return opened.read(max_bytes)


def check_inside(folder: Path, path: Path | None = None) -> None:
    """Raises :class:`~adapters.errors.AdapterFormatError` where ``path``, or ``folder`` itself, is a link that leads
    out of ``folder``."""
    path = path or folder
    try:
        resolved = path.resolve()
    except (OSError, RuntimeError) as error:
        raise AdapterFormatError(folder.name, f"{path.name} leads nowhere: {error}") from error
    if not resolved.is_relative_to(folder.parent.resolve() / folder.name):
        raise AdapterFormatError(folder.name, f"{path.name} is a link that leaves the folder of the adapter")
