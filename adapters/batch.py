"""What the rows of one batch wear, out of the bank: rows that wear nothing of a pool are left out of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from adapters import rowwise
from adapters.config import Place
from adapters.fixed import PoolKey
from adapters.methods import METHODS
from adapters.rowwise import Rows
from adapters.shapes import Norm, Sites


@dataclass(frozen=True)
class WornPool:
    """What a batch wears of one pool. ``rows``: which of its rows, None for all. ``numbers``: the slot of each such
    row, (R,); ``slots``: the same on the device."""

    key: PoolKey
    views: Mapping[str, Tensor]
    sites: Sites
    rows: Tensor | None
    numbers: tuple[int, ...]
    slots: Tensor

    @property
    def shared(self) -> bool:
        """Whether one slot is worn by all its rows."""
        return len(set(self.numbers)) == 1

    def one(self, name: str) -> Tensor:
        """The tensor ``name`` of the shared slot."""
        return self.views[name][self.numbers[0]]

    def each(self, name: str) -> Rows:
        """The tensor ``name`` of each row's slot."""
        return rowwise.each(self.views[name], self.numbers, self.slots)

    def adapt(self, layer: int, place: Place, y: Tensor, x: Tensor) -> Tensor:
        """(B, T, D) twice, of all rows of the batch -> those that wear it are changed."""
        if (names := self.sites.get((layer, place))) is None:
            return y
        method = METHODS[str(self.key[0])]
        if self.rows is not None:
            x, changed = x.index_select(0, self.rows), y.index_select(0, self.rows)
        else:
            changed = y
        if self.shared:
            changed = method.one(changed, x, {short: self.one(name) for short, name in names.items()})
        else:
            changed = method.many(changed, x, {short: self.each(name) for short, name in names.items()})
        return changed if self.rows is None else y.index_copy(0, self.rows, changed)


@dataclass(frozen=True)
class BatchAdapters:
    """What each row of one batch wears. Implements :class:`~adapters.encoder.Worn`.

    Row i of every result equals what :class:`~adapters.adapter.Adapter` with row i's weights gives for row i alone.
    """

    rows: int
    lowest_layer: int
    method: tuple[WornPool, ...]
    norms: tuple[WornPool, ...]
    heads: tuple[WornPool, ...]

    def norm(self, layer: int, which: Norm, base: nn.LayerNorm, x: Tensor) -> Tensor:
        names = [f"layers.{layer}.{which}.{part}" for part in ("weight", "bias")]
        pools = [pool for pool in self.norms if names[0] in pool.views]
        if not pools:
            return base(x)  # type: ignore[no-any-return]
        only = pools[0]
        if only.rows is None and only.shared:
            return F.layer_norm(x, base.normalized_shape, only.one(names[0]), only.one(names[1]), base.eps)
        scale, shift = self._rowwise(base.weight, names[0], pools), self._rowwise(base.bias, names[1], pools)
        return rowwise.norm(x, scale, shift, base.eps)

    def _rowwise(self, base: Tensor, name: str, pools: list[WornPool]) -> Tensor:
        """(D,) of the backbone -> (B, D), each row's own where it has one."""
        if pools[0].rows is None:
            return rowwise.stacked(pools[0].each(name))
        each = base.repeat(self.rows, 1)
        for pool in pools:
            assert pool.rows is not None
            each[pool.rows] = rowwise.stacked(pool.each(name))
        return each

    def adapt(self, layer: int, place: Place, y: Tensor, x: Tensor) -> Tensor:
        for pool in self.method:
            y = pool.adapt(layer, place, y, x)
        return y

    def head(self, x: Tensor) -> Tensor:
        if len(self.heads) == 1:
            return self._logits(self.heads[0], x)
        widest = max(pool.views["head.bias"].shape[1] for pool in self.heads)
        logits = x.new_full((*x.shape[:2], widest), -math.inf)
        for pool in self.heads:
            assert pool.rows is not None
            part = self._logits(pool, x.index_select(0, pool.rows))
            logits[pool.rows, :, : part.shape[2]] = part
        return logits

    def _logits(self, pool: WornPool, x: Tensor) -> Tensor:
        if pool.shared:
            return F.linear(x, pool.one("head.weight"), pool.one("head.bias"))
        return rowwise.linear(x, pool.each("head.weight"), pool.each("head.bias"))  # (R, T, V)
