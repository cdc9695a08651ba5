"""Tensors of one shape set, stacked by slot: a part of the bank."""

from __future__ import annotations

import heapq
import itertools
import math
import mmap
import sys
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor

from adapters.errors import BankFull
from adapters.shapes import Sites

_SLOW_TO_TOUCH = 1 << 22  # bytes whose pages take milliseconds to be made
_NUMBERS = itertools.count()
_MAP_NORESERVE = 0x4000  # Linux; mmap has no name for it before Python 3.13


class Pool:
    """Tensors of one shape set, stacked by slot in one buffer of ``limit`` slots, so that seating is one contiguous
    copy. What a named slot holds never changes.

    Slot 0 holds zeros and is never taken: it wears nothing. The buffer never moves, since recorded graphs know it by
    its address. On a CPU it is address space alone until a slot is written; low ones are taken first.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        limit: int,
        device: torch.device,
        dtype: torch.dtype,
        sites: Sites = MappingProxyType({}),
    ) -> None:
        """``sites``: where in the layers its tensors act. Raises :class:`~adapters.errors.BankFull` where there is no
        room for it."""
        self._shapes, self.sites = dict(shapes), sites
        self.number = next(_NUMBERS)  # no other pool of this process has it
        self._width = sum(math.prod(shape) for shape in shapes.values())
        self._buffer = _zeros(1 + limit, self._width, device, dtype)
        self._free = list(range(1, 1 + limit))  # a heap
        self._written: set[int] = set()
        self.views = self._split()

    @property
    def bytes(self) -> int:
        """Bytes that it takes on the device: of all slots on a GPU, of those that were ever written on a CPU."""
        return self.slot_bytes * (len(self._buffer) if self._buffer.is_cuda else len(self._written))

    @property
    def slot_bytes(self) -> int:
        """Bytes of one slot."""
        return self._width * self._buffer.element_size()

    @property
    def empty(self) -> bool:
        """Whether no slot is taken."""
        return len(self._free) == len(self._buffer) - 1

    def take(self) -> int:
        """The number of a free slot, whose contents are nobody's. Raises :class:`~adapters.errors.BankFull`."""
        if not self._free:
            slots = len(self._buffer) - 1
            raise BankFull(f"all {slots} slots of a pool are taken; raise the number of device slots or wait for one")
        slot = heapq.heappop(self._free)
        self._written.add(slot)
        return slot

    def preparation(self) -> Callable[[], object]:
        """What makes memory for the slot that is taken next, where that takes longer than filling it: new pages of a
        CPU, in a large slot. To be done before a slot is taken again."""
        slow = not self._buffer.is_cuda and self.slot_bytes >= _SLOW_TO_TOUCH
        if not slow or not self._free or self._free[0] in self._written:
            return lambda: None
        self._written.add(self._free[0])
        return self._buffer[self._free[0]].zero_

    def give_back(self, slot: int) -> None:
        """The slot may be written again."""
        heapq.heappush(self._free, slot)

    def filling(self, slot: int, tensors: Mapping[str, Tensor]) -> Callable[[], None]:
        """What fills a slot that was taken and that nobody has been told of. For a GPU the tensors are laid side by
        side in pinned memory first, so that one copy is left to be done, which does not block."""
        if not self._buffer.is_cuda:
            return partial(self._copy, slot, tensors)
        packed = torch.cat([tensors[name].reshape(-1).to("cpu", self._buffer.dtype) for name in self._shapes])
        return partial(self._copy_packed, slot, packed.pin_memory())

    def _copy(self, slot: int, tensors: Mapping[str, Tensor]) -> None:
        for name, view in self.views.items():
            view[slot].copy_(tensors[name])

    def _copy_packed(self, slot: int, packed: Tensor) -> None:
        self._buffer[slot].copy_(packed, non_blocking=True)

    def _split(self) -> dict[str, Tensor]:
        views, begin = {}, 0
        for name, shape in self._shapes.items():
            end = begin + math.prod(shape)
            views[name] = self._buffer[:, begin:end].view(-1, *shape)
            begin = end
        return views


def _zeros(slots: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(slots, width) zeros, on a CPU of pages that are taken when they are first written."""
    if device.type != "cpu" or not width:
        return torch.zeros(slots, width, device=device, dtype=dtype)
    size = slots * width * dtype.itemsize
    try:
        if sys.platform == "linux":
            pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
        else:
            pages = mmap.mmap(-1, size)
    except OSError as error:
        raise BankFull(
            f"no {size} bytes of address space for {slots} slots: {error}; lower the device slots"
        ) from error
    return torch.frombuffer(pages, dtype=dtype).view(slots, width)
