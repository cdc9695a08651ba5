"""Files of other projects: read as what they say they are, or refused by the name of the adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from adapters.errors import AdapterFormatError


def read_json(name: str, path: Path) -> dict[str, Any]:
    """A file that holds one JSON object. Raises :class:`~adapters.errors.AdapterFormatError`."""
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise AdapterFormatError(name, f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise AdapterFormatError(name, f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise AdapterFormatError(name, f"{path} is not one JSON object")
    return found


def read_tensors(name: str, path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name; a pickle in its place is never loaded.

    Raises :class:`~adapters.errors.AdapterFormatError`.
    """
    if not path.is_file():
        pickled = path.with_suffix(".bin")
        if pickled.exists():
            right = f"save it anew as {path.name} (safetensors)"
            raise AdapterFormatError(name, f"{pickled.name} is a pickle, which is never loaded; {right}")
        raise AdapterFormatError(name, f"there is no {path.name} in {path.parent}")
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise AdapterFormatError(name, f"{path} is not safetensors: {error}") from error
