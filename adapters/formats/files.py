"""Files of other projects: read as what they say they are, or refused by the name of the adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from adapters.errors import AdapterFormatError

MOST_JSON_BYTES = 1 << 26
_BROKEN = (OSError, SafetensorError, ValueError, KeyError, RuntimeError)
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_json(name: str, path: Path) -> dict[str, Any]:
    """A file that holds one JSON object. Raises :class:`~adapters.errors.AdapterFormatError`."""
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise AdapterFormatError(name, f"{path} is not a file")
        with path.open("rb") as opened:
            content = opened.read(MOST_JSON_BYTES + 1)
        if len(content) > MOST_JSON_BYTES:
            raise AdapterFormatError(name, f"{path} has more than {MOST_JSON_BYTES} bytes, the most that is read")
        found = json.loads(content)
    except OSError as error:
        raise AdapterFormatError(name, f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise AdapterFormatError(name, f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise AdapterFormatError(name, f"{path} is not one JSON object")
    return found


def read_header(name: str, path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, without their numbers: on the device ``meta``, so that shapes can be
    compared before anything is loaded. A pickle in its place is never loaded.

    Raises :class:`~adapters.errors.AdapterFormatError`.
    """
    if not path.is_file():
        pickled = path.with_suffix(".bin")
        if pickled.exists():
            right = f"save it anew as {path.name} (safetensors)"
            raise AdapterFormatError(name, f"{pickled.name} is a pickle, which is never loaded; {right}")
        raise AdapterFormatError(name, f"there is no {path.name} in {path.parent}")
    found: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a mapping
                told = file.get_slice(key)
                dtype = _DTYPES.get(told.get_dtype(), torch.uint8)
                found[key] = torch.empty(told.get_shape(), dtype=dtype, device="meta")
    except _BROKEN as error:
        raise AdapterFormatError(name, f"{path} is not safetensors: {error}") from error
    return found


def read_tensors(name: str, path: Path) -> dict[str, Tensor]:
    """The same with their numbers."""
    try:
        return load_file(path)
    except _BROKEN as error:
        raise AdapterFormatError(name, f"{path} is not safetensors: {error}") from error
