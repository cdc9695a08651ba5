"""The folder of a training run: what it is a run of, and checkpoints that a kill cannot tear."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from adapters.errors import DataError
from adapters.training.manifest import write_text_atomically

_RECORD = "run.json"


_LOCKS: dict[Path, int] = {}  # of this process, until it ends


def claim(folder: Path, made_from: Mapping[str, Any], *, rank: int = 0) -> None:
    """Note in ``folder`` what its run is made from (plain JSON), or check that it is what was noted before.

    Raises :class:`~adapters.errors.DataError` where the folder holds another run: going on there would pass the old
    checkpoint off as made from something else; or where another process, not of ``rank`` 1 and up of this run, is at
    work in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if rank == 0 and folder.resolve() not in _LOCKS:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise DataError(f"{folder}: another process trains in it; wait for it, or take another folder") from error
        _LOCKS[folder.resolve()] = lock
    wanted = json.loads(json.dumps(made_from))
    path = folder / _RECORD
    if not path.exists():
        write_text_atomically(path, json.dumps(wanted, indent=2, ensure_ascii=False) + "\n")
        return
    found = noted(folder)
    other = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
    if other:
        raise DataError(
            f"{folder}: holds a run that differs in {', '.join(other)}; take another folder for this one, or remove it"
        )


def noted(folder: Path) -> dict[str, Any]:
    """What the run in ``folder`` is made from; nothing where there is none."""
    path = folder / _RECORD
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write ``state`` (tensors, numbers and containers of them) beside ``path``, sync, and replace.

    Raises :class:`~adapters.errors.DataError` where it cannot be written; what was there before stays."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # a disk that is full is either
        raise DataError(f"{path}: the checkpoint cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path, device: str) -> dict[str, Any] | None:
    """What :func:`save_checkpoint` wrote, tensors on ``device``; None where nothing was."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return state
