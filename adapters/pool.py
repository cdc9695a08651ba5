"""Tensors of one shape set, stacked by slot: a part of the bank."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from adapters.errors import BankFull

_FIRST_SLOTS = 8


class Pool:
    """Tensors of one shape set, stacked by slot in one buffer, so that seating is one contiguous copy.

    Slot 0 holds zeros and is never taken: it wears nothing. On a CPU the buffer grows by doubling up to ``limit`` slots
    besides it. A batch keeps the views that it started with: growing copies, and what a named slot holds never changes,
    so both say the same. On a GPU it has them all from the start, since recorded graphs know it by its address.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], limit: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._shapes = dict(shapes)
        self._width = sum(math.prod(shape) for shape in shapes.values())
        self._limit = limit
        first = min(_FIRST_SLOTS, limit) if device.type == "cpu" else limit
        self._buffer = torch.zeros(1 + first, self._width, device=device, dtype=dtype)
        self._free = list(range(1, 1 + first))
        self.views = self._split()

    @property
    def bytes(self) -> int:
        """Bytes that the buffer takes on the device."""
        return self._buffer.numel() * self._buffer.element_size()

    @property
    def slot_bytes(self) -> int:
        """Bytes of one slot."""
        return self._width * self._buffer.element_size()

    def take(self) -> int:
        """The number of a free slot, whose contents are nobody's. Raises ``IndexError`` where :attr:`full`."""
        return self._free.pop()

    def give_back(self, slot: int) -> None:
        """The slot may be written again."""
        self._free.append(slot)

    @property
    def full(self) -> bool:
        """Whether it has to grow first."""
        return not self._free

    def pack(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """What :meth:`write` copies: all of them, one after the other, on the host, pinned for a GPU."""
        packed = torch.cat([tensors[name].reshape(-1).to("cpu", self._buffer.dtype) for name in self._shapes])
        return packed.pin_memory() if self._buffer.is_cuda else packed

    def write(self, slot: int, packed: Tensor) -> None:
        """Fill a slot that was taken and that nobody has been told of."""
        self._buffer[slot].copy_(packed, non_blocking=True)

    def wider(self) -> Tensor:
        """A buffer with twice the slots and the same contents, for :meth:`grow`. Raises
        :class:`~adapters.errors.BankFull`."""
        slots = self._buffer.shape[0] - 1
        count = min(slots * 2, self._limit)
        if count == slots:
            raise BankFull(f"all {slots} slots of a pool are taken; raise the number of device slots or wait for one")
        buffer = torch.zeros(1 + count, self._width, device=self._buffer.device, dtype=self._buffer.dtype)
        buffer[: 1 + slots].copy_(self._buffer)
        return buffer

    def grow(self, buffer: Tensor) -> None:
        """Go on in ``buffer``."""
        self._free += range(self._buffer.shape[0], buffer.shape[0])
        self._buffer = buffer
        self.views = self._split()

    def _split(self) -> dict[str, Tensor]:
        views, begin = {}, 0
        for name, shape in self._shapes.items():
            end = begin + math.prod(shape)
            views[name] = self._buffer[:, begin:end].view(-1, *shape)
            begin = end
        return views
