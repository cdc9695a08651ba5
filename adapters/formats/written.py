"""What is written for other projects: whole files, durably, and nothing that is there is replaced unasked."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from adapters.durable import sync_folder, write_whole
from adapters.errors import AdapterFormatError


@contextmanager
def writing_into(folder: Path) -> Iterator[None]:
    """``folder`` is there, and writers of all processes take turns in it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def write_files(
    name: str, folder: Path, contents: Mapping[str, bytes], *, force: bool, shared: Collection[str] = ()
) -> tuple[Path, ...]:
    """Write ``contents`` by file name, in their order; returns where they lie. The last file is the one by which an
    adapter is found: it is taken away first and comes back last, so that a crash leaves none rather than a mixture.

    ``force``: replace what is there. ``shared``: files that hold what is others' as well, and are replaced always.
    Raises :class:`~adapters.errors.AdapterFormatError` for what is there already.
    """
    there = [file for file in contents if file not in shared and (folder / file).exists()]
    if there and not force:
        right = "choose another folder, or replace it with --force"
        raise AdapterFormatError(name, f"{folder / there[0]} is there already: {right}")
    last = list(contents)[-1]
    (folder / last).unlink(missing_ok=True)
    sync_folder(folder)
    for file, content in contents.items():
        write_whole(folder / file, content)
    return tuple(folder / file for file in contents)
