"""A checkpoint whose weights are a pickle, made one of safetensors: once, by hand, never by the service.

torch reads it without running what it holds (``weights_only``). What comes out is a folder of its own.
"""

from __future__ import annotations

import json
import os
import pickle
import secrets
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from adapters.backbone import read_config
from adapters.durable import sync_folder
from adapters.errors import BackboneError
from adapters.repository import Repository
from adapters.weights import INDEX, WHOLE, Weights

PICKLE = "pytorch_model.bin"
_BESIDE = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "vocab.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


def convert(repository: Repository, out: Path) -> Path:
    """Write the checkpoint into ``out`` with ``model.safetensors``; returns ``out``, whole or not at all.

    Raises :class:`~adapters.errors.BackboneError` where it has safetensors already, no pickle, one that holds more than
    tensors, or what no backbone is, :class:`~adapters.errors.HubError` where its files cannot be had.
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
    beside = {name: repository.fetch(name) for name in _BESIDE if name in files}
    place = out.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    made = place.with_name(f".{place.name}.{secrets.token_hex(8)}")
    made.mkdir()
    try:
        for name, path in beside.items():
            shutil.copyfile(path, made / name)
        read_config(made)
        # what shares memory in a pickle must not in safetensors
        apart = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
        save_file(apart, made / WHOLE, {"format": "pt"})
        with Weights(made) as weights:
            weights.check()
        _sync(made)
        made.replace(place)  # an empty folder is replaced as well
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    sync_folder(place.parent)
    return out


def _sync(folder: Path) -> None:
    """Each file in ``folder`` is on disk."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)


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
        # torch before 1.6 wrote no zip, and only a zip can be mapped
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise BackboneError(f"{path.name} holds more than tensors, or is broken; it is not read: {error}") from error
    if not isinstance(found, Mapping) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise BackboneError(f"{path.name} is not a mapping of names to tensors")
    return dict(found)
