"""Adapters as other projects keep them, a file each: what is read becomes an :class:`Imported`, which the store can
publish and the bank can seat; what is written, those projects load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from adapters.config import AdapterConfig
from adapters.vocab import Vocab


@dataclass(frozen=True)
class Imported:
    """An adapter out of another format: tensors under our names, as stored. ``base_model``: what it says that it
    was trained on."""

    config: AdapterConfig
    tensors: Mapping[str, Tensor]
    vocab: Vocab
    base_model: str | None = None
