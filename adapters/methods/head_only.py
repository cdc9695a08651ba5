"""No adapter inside the layers: a CTC head (and norms, where the configuration names them) on the bare backbone."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from adapters.config import AdapterConfig, BackboneSize, Place
from adapters.rowwise import Rows

OPTIONS: tuple[str, ...] = ()


def places(config: AdapterConfig) -> tuple[Place, ...]:
    """Nowhere."""
    return ()


def shapes(config: AdapterConfig, place: Place, size: BackboneSize) -> dict[str, tuple[int, ...]]:
    """No tensors."""
    return {}


def start(name: str, tensor: Tensor) -> None:
    """Nothing to fill."""


def one(y: Tensor, x: Tensor, w: Mapping[str, Tensor]) -> Tensor:
    """y (B, T, D) as it is."""
    return y


def many(y: Tensor, x: Tensor, w: Mapping[str, Rows]) -> Tensor:
    """y (B, T, D) as it is."""
    return y
