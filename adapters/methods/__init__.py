"""Methods of adaptation: a file each, and a line in ``METHODS``.

A method is a module with ``OPTIONS`` (names of those it has), ``places`` (where in a layer it acts: on a sublayer, a
projection or a whole layer, whose output y it changes and whose input x it may look at), ``shapes`` (its tensors at one
of them), ``start`` (their values before training) and the pair ``one`` and ``many``: one adapter for all rows, and a
different one for each row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from adapters.config import AdapterConfig, BackboneSize, Place
from adapters.methods import bottleneck, head_only, lora, mms
from adapters.rowwise import Rows


class Method(Protocol):
    """What a method's module offers; see :mod:`adapters.methods.bottleneck` for the meaning of each."""

    OPTIONS: tuple[str, ...]

    def places(self, config: AdapterConfig) -> tuple[Place, ...]: ...

    def shapes(self, config: AdapterConfig, place: Place, size: BackboneSize) -> dict[str, tuple[int, ...]]: ...

    def start(self, name: str, tensor: Tensor) -> None: ...

    def one(self, y: Tensor, x: Tensor, w: Mapping[str, Tensor]) -> Tensor: ...

    def many(self, y: Tensor, x: Tensor, w: Mapping[str, Rows]) -> Tensor: ...


METHODS: dict[str, Method] = {"bottleneck": bottleneck, "head": head_only, "lora": lora, "mms": mms}  # type: ignore[dict-item]

__all__ = ["METHODS", "Method"]
