"""The tensors of a checkpoint in Hugging Face layout, whatever wrapped the model when it was saved: mapped into memory,
and read when one is wanted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from safetensors import SafetensorError, safe_open
from torch import Tensor

from adapters.errors import BackboneError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*.bin")
_PREFIXES = ("wav2vec2.", "hubert.")
_COMPUTED = ("feature_extractor.", "feature_projection.", "encoder.", "lm_head.")
_TYPES = ("F16", "BF16", "F32", "F64")

# parts of a checkpoint that are not the backbone
_NOT_BACKBONE = (
    "lm_head.",
    "quantizer.",
    "project_",
    "masked_spec_embed",
    "adapter.",
    "classifier.",
    "projector.",
)


class Weights:
    """The tensors of the checkpoint in ``folder``, in one file or several, under canonical names; to be used in a
    ``with`` block.

    Raises :class:`~adapters.errors.BackboneError` where there are none as safetensors, or one cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open = ExitStack()
        self._where: dict[str, tuple[Any, str]] = {}
        try:
            for path in weight_files(folder):
                file = self._open.enter_context(safe_open(path, framework="pt"))
                self._where |= {canonical(name): (file, name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except (OSError, SafetensorError) as error:
            self._open.close()
            raise BackboneError(f"{folder}: the weights are not readable as safetensors: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __getitem__(self, name: str) -> Tensor:
        """Raises ``KeyError`` for a tensor that is not there, and :class:`~adapters.errors.BackboneError` as
        :meth:`check` does."""
        file, stored = self._where[name]
        try:
            self._check(name)
            found: Tensor = file.get_tensor(stored)
        except (OSError, SafetensorError) as error:
            raise BackboneError(f"{self.folder}: {stored} cannot be read: {error}") from error
        return found

    def check(self) -> None:
        """Raises :class:`~adapters.errors.BackboneError` for weights that are integers, or of eight bits: what makes
        numbers of them is of whoever quantised them, and they would be taken for the numbers themselves."""
        for name in self:
            self._check(name)

    def _check(self, name: str) -> None:
        file, stored = self._where[name]
        if name.startswith(_COMPUTED) and (kind := file.get_slice(stored).get_dtype()) not in _TYPES:
            right = f"weights are {', '.join(_TYPES[:-1])} or {_TYPES[-1]}; take the checkpoint before it was quantised"
            raise BackboneError(f"{self.folder}: {stored} is of the type {kind}: {right}")


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors of a checkpoint. Raises :class:`~adapters.errors.BackboneError` where it has none, or only a
    pickle."""
    if (folder / WHOLE).is_file():
        return (folder / WHOLE,)
    if (folder / INDEX).is_file():
        return _parts(folder)
    if any(found for pattern in PICKLES for found in folder.glob(pattern)):
        raise BackboneError(pickle_refused(str(folder)))
    raise BackboneError(f"{folder}: no {WHOLE}")


def pickle_refused(source: str) -> str:
    """What is said of a checkpoint without safetensors."""
    return (
        f"{source}: no {WHOLE}; its weights are a pickle, which can run code and is never loaded: "
        f"`tongues backbone convert {source} --out FOLDER` makes safetensors of it"
    )


def _parts(folder: Path) -> tuple[Path, ...]:
    try:
        named = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackboneError(f"{folder / INDEX}: not an index of weights: {error}") from error
    for name in named:
        if not isinstance(name, str) or Path(name).name != name or not (folder / name).is_file():
            raise BackboneError(f"{folder / INDEX}: names {name!r}, which is not a file beside it")
    return tuple(folder / name for name in named)


def canonical(name: str) -> str:
    """One name for a tensor whatever wrapped the model when it was saved, and whichever torch named its weight norm."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    name = name.replace("parametrizations.weight.original0", "weight_g")
    return name.replace("parametrizations.weight.original1", "weight_v")


def counts(name: str) -> bool:
    """Whether a tensor of this canonical name is part of the backbone."""
    return not name.startswith(_NOT_BACKBONE) and ".adapter_layer." not in name
