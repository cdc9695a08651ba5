"""What the commands say when something goes wrong."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import typer
from rich.console import Console

from adapters.errors import StoreError, TonguesError

if TYPE_CHECKING:
    from adapters.store import AdapterStore

_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


def log_to_stderr(level: str = "info") -> None:
    """What goes on, a line each. ``level`` is for what the project says: clients of hubs and buckets would tell keys in
    a log in which they may say all."""
    logging.basicConfig(level=level.upper(), format=_FORMAT)
    root = logging.getLogger()
    logging.getLogger("tongues").setLevel(root.level)
    root.setLevel(max(logging.INFO, root.level))
    logging.getLogger("httpx2").setLevel(max(logging.WARNING, root.level))  # a line a file of a hub


def listed(value: str) -> list[str]:
    """What is separated by commas."""
    return [one.strip() for one in value.split(",") if one.strip()]


@contextmanager
def errors_told(console: Console | None = None) -> Iterator[None]:
    """What went wrong in one line on standard error instead of a traceback, and status 1."""
    try:
        yield
    except (TonguesError, OSError) as error:  # of the system's errors: a disk that is full, a folder that is read-only
        told = console or Console(stderr=True)
        told.print("error: ", style="red", end="")
        told.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


@contextmanager
def only_python_tells() -> Iterator[None]:
    """What libraries in C++ write to standard error is not shown: KenLM draws a bar for each model that it reads, and
    nothing tells it not to. For commands alone, since it is so for all threads; what Python writes there comes."""
    if sys.stderr is None:
        yield
        return
    sys.stderr.flush()
    kept, told = os.dup(2), sys.stderr
    try:
        with open(kept, "w", buffering=1, closefd=False) as python, open(os.devnull, "w") as nowhere:
            if _writes_to(told, 2):
                sys.stderr = python
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        sys.stderr = told
        os.dup2(kept, 2)
        os.close(kept)


def _writes_to(stream: TextIO, descriptor: int) -> bool:
    try:
        return stream.fileno() == descriptor
    except (OSError, ValueError, AttributeError):  # one of a test, or of who calls the command from Python
        return False


@contextmanager
def writing(place: Path | AdapterStore) -> Iterator[None]:
    """Raises :class:`~adapters.errors.StoreError` where ``place`` cannot be written."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{place} cannot be written: {error}") from error
