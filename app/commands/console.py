"""What the commands say when something goes wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

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
def writing(place: Path | AdapterStore) -> Iterator[None]:
    """Raises :class:`~adapters.errors.StoreError` where ``place`` cannot be written."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{place} cannot be written: {error}") from error
