"""Tensors of one shape set, stacked by slot: a part of the bank."""

from __future__ import annotations

import heapq
import itertools
import math
import mmap
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor

from adapters.errors import BankFull
from adapters.shapes import Sites

_SLOW_TO_TOUCH = 1 << 22  # bytes whose pages take milliseconds to be made
_ALIGNED = 8  # elements: 16 bytes or more, which matrix products want their operands at
_NUMBERS = itertools.count()
_MAP_NORESERVE = 0x4000  # Linux; mmap has no name for it before Python 3.13


@dataclass(frozen=True, eq=False)
class Section:
    """Tensors of a pool that lie side by side and are wanted together: those of one layer, or those of no layer.
    ``words``: (S, W) int64, all their bytes by slot; ``places``: of each its first element in there, and its shape."""

    words: Tensor
    dtype: torch.dtype
    places: Mapping[str, tuple[int, tuple[int, ...]]]

    def pick(self, slots: Tensor) -> dict[str, Tensor]:
        """What the slots (R,) hold: each tensor (R, ...), a view of one copy. Words of eight bytes, since a GPU copies
        element by element, and halves take it four times as long."""
        picked = self.words.index_select(0, slots).view(self.dtype)
        return {
            name: picked[:, begin : begin + math.prod(shape)].view(-1, *shape)
            for name, (begin, shape) in self.places.items()
        }


class Pool:
    """Tensors of one shape set, stacked by slot in one buffer of ``limit`` slots, so that seating is one contiguous
    copy. What a named slot holds never changes. :attr:`sections`: of each tensor the one that it is in.

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
        self._places, self._width = _placed(shapes)
        self._buffer = _zeros(1 + limit, self._width, device, dtype)
        self._free = list(range(1, 1 + limit))  # a heap
        self._written: set[int] = set()
        self.views = self._split()
        self.sections = self._sections()

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
        packed = torch.empty(self._width, dtype=self._buffer.dtype, pin_memory=True)
        for name, begin in self._places.items():
            packed[begin : begin + tensors[name].numel()] = tensors[name].reshape(-1)
        return partial(self._copy_packed, slot, packed)

    def _copy(self, slot: int, tensors: Mapping[str, Tensor]) -> None:
        for name, view in self.views.items():
            view[slot].copy_(tensors[name])

    def _copy_packed(self, slot: int, packed: Tensor) -> None:
        self._buffer[slot].copy_(packed, non_blocking=True)

    def _split(self) -> dict[str, Tensor]:
        return {
            name: self._buffer[:, begin : begin + math.prod(shape)].view(-1, *shape)
            for (name, shape), begin in zip(self._shapes.items(), self._places.values(), strict=True)
        }

    def _sections(self) -> dict[str, Section]:
        found: dict[str, Section] = {}
        words = self._buffer.view(torch.int64)
        each = words.element_size() // self._buffer.element_size()
        together: dict[str, list[str]] = {}
        for name in self._shapes:
            together.setdefault(".".join(name.split(".")[:2]) if name.startswith("layers.") else "", []).append(name)
        for names in together.values():
            first, last = self._places[names[0]], names[-1]
            end = _aligned(self._places[last] + math.prod(self._shapes[last]))
            places = {name: (self._places[name] - first, self._shapes[name]) for name in names}
            section = Section(words[:, first // each : end // each], self._buffer.dtype, places)
            found.update(dict.fromkeys(names, section))
        return found


def _placed(shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, int], int]:
    """The first element of each tensor in a slot, and how many there are in all."""
    places, end = {}, 0
    for name, shape in shapes.items():
        places[name] = end
        end = _aligned(end + math.prod(shape))
    return places, end


def _aligned(elements: int) -> int:
    return -(-elements // _ALIGNED) * _ALIGNED


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
