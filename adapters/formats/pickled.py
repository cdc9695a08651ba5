"""A checkpoint whose weights are a pickle, made one of safetensors: once, by hand, never by the service.

torch reads it without running what it holds (``weights_only``). What comes out is a folder of its own.
"""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from adapters.errors import BackboneError
from adapters.repository import Repository
from adapters.weights import INDEX, WHOLE

PICKLE = "pytorch_model.bin"
_BESIDE = ("config.json", "preprocessor_config.json", "vocab.json", "tokenizer_config.json", "special_tokens_map.json")


def convert(repository: Repository, out: Path) -> Path:
    """Write the checkpoint into ``out`` with ``model.safetensors``; returns ``out``.

    Raises :class:`~adapters.errors.BackboneError` where it has safetensors already, no pickle, or one that holds more
    than tensors, :class:`~adapters.errors.HubError` where its files cannot be had.
    """
    files = repository.files
    if WHOLE in files or INDEX in files:
        raise BackboneError(f"{repository.name} has safetensors already: serve it as it is")
    names = [PICKLE] if PICKLE in files else _parts(repository)
    if out.exists() and any(out.iterdir()):
        raise BackboneError(f"{out} is not empty: name a folder that is not there yet")
    tensors: dict[str, torch.Tensor] = {}
    for name in names:
        tensors |= _read(repository.fetch(name))
    out.mkdir(parents=True, exist_ok=True)
    for name in _BESIDE:
        if name in files:
            shutil.copyfile(repository.fetch(name), out / name)
    # what shares memory in a pickle must not in safetensors
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, out / WHOLE, {"format": "pt"})
    return out


def _parts(repository: Repository) -> list[str]:
    index = f"{PICKLE}.index.json"
    if index not in repository.files:
        raise BackboneError(f"{repository.name}: neither {WHOLE} nor {PICKLE}, so there are no weights to convert")
    try:
        return sorted(set(json.loads(repository.fetch(index).read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackboneError(f"{repository.name}: {index} is not an index of weights: {error}") from error


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise BackboneError(f"{path.name} holds more than tensors, or is broken; it is not read: {error}") from error
    if not isinstance(found, Mapping) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise BackboneError(f"{path.name} is not a mapping of names to tensors")
    return dict(found)
