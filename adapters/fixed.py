"""What rows wear, in operations that are the same for every batch of a shape: a GPU's graphs are recorded once.

:class:`~adapters.batch.BatchAdapters` leaves rows out of pools that they wear nothing of, so its shapes follow the
batch. Here every pool that any row wears acts on all rows, as do all heads where they are few, and rows that wear
nothing of it wear its slot 0, which holds zeros: a method with zeros for weights leaves a row as it is
(:mod:`adapters.methods`). Only the slot numbers change from batch to batch.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adapters import rowwise
from adapters.config import Place
from adapters.methods import METHODS
from adapters.pool import Section
from adapters.shapes import Norm, Sites

PoolKey = tuple[object, ...]


@dataclass(frozen=True)
class Stack:
    """The tensors of one pool, stacked by slot, and the row of :attr:`FixedAdapters.slots` that is about it.
    ``number``: of the pool, another one when it was dropped and made again under its key."""

    key: PoolKey
    number: int
    views: Mapping[str, Tensor]
    sections: Mapping[str, Section]
    sites: Sites
    row: int


@dataclass(frozen=True)
class FixedAdapters:
    """What each row of one batch wears. Implements :class:`~adapters.encoder.Worn`, ``x`` being (R, T, D).

    ``slots``: (pools, R) int64 on the device, 0 for nothing. Row i of every result equals that of
    :class:`~adapters.batch.BatchAdapters`; of a row that wears no head, token 0 is certain.
    """

    lowest_layer: int
    method: tuple[Stack, ...]
    norms: tuple[Stack, ...]
    heads: tuple[Stack, ...]
    slots: Tensor
    _picked: dict[int, tuple[Section, dict[str, Tensor]]] = field(init=False, repr=False, default_factory=dict)
    """By the row of a stack the section that was picked last: a layer's tensors are wanted one after the other."""
    _worn: dict[int, Tensor] = field(init=False, repr=False, default_factory=dict)
    """By the row of a stack which rows wear anything of it, (R,) bool."""

    @property
    def kind(self) -> Hashable:
        """All that the operations depend on, but for the slots."""
        return self.lowest_layer, *(
            tuple((stack.key, stack.number) for stack in part) for part in (self.method, self.norms, self.heads)
        )

    def norm(self, layer: int, which: Norm, base: nn.LayerNorm, x: Tensor) -> Tensor:
        prefix = f"layers.{layer}.{which}."
        stacks = [stack for stack in self.norms if f"{prefix}weight" in stack.views]
        if not stacks:
            return base(x)  # type: ignore[no-any-return]
        scale, shift = base.weight.expand(x.shape[0], -1), base.bias.expand(x.shape[0], -1)  # (R, D)
        for stack in stacks:
            wears = self._wears(stack)[:, None]
            scale = torch.where(wears, self._pick(stack, f"{prefix}weight"), scale)
            shift = torch.where(wears, self._pick(stack, f"{prefix}bias"), shift)
        return rowwise.norm(x, scale, shift, base.eps)

    def adapt(self, layer: int, place: Place, y: Tensor, x: Tensor) -> Tensor:
        for stack in self.method:
            if (names := stack.sites.get((layer, place))) is not None:
                weights = {short: self._pick(stack, name) for short, name in names.items()}
                y = METHODS[str(stack.key[0])].many(y, x, weights)
        return y

    def head(self, x: Tensor) -> Tensor:
        widest = max(stack.views["head.bias"].shape[1] for stack in self.heads)
        logits = x.new_full((*x.shape[:2], widest), -math.inf)
        logits.select(2, 0).zero_()  # a softmax over nothing but -inf is no number
        for stack in self.heads:
            weight, bias = self._pick(stack, "head.weight"), self._pick(stack, "head.bias")
            part = rowwise.linear(x, weight, bias)  # (R, T, V)
            part = F.pad(part, (0, widest - part.shape[2]), value=-math.inf)
            logits = torch.where(self._wears(stack)[:, None, None], part, logits)
        return logits

    def _wears(self, stack: Stack) -> Tensor:
        if stack.row not in self._worn:
            self._worn[stack.row] = self.slots[stack.row] > 0
        return self._worn[stack.row]

    def _pick(self, stack: Stack, name: str) -> Tensor:
        section = stack.sections[name]
        held = self._picked.get(stack.row)
        if held is None or held[0] is not section:
            held = self._picked[stack.row] = section, section.pick(self.slots[stack.row])
        return held[1][name]
