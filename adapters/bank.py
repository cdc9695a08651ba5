"""Many adapters side by side on the device: stacked weights in pools of one shape, and what a batch wears of them.

A *pool* holds tensors of one shape set stacked by slot: one pool for each shape of a method (size and layers), one for
each set of norm layers, one a vocabulary class for heads. A 16-wide adapter never pays for a 256-wide one, and a row
that wears nothing in a pool costs nothing there. An adapter's *seat* names its slot in each pool that it needs.

A slot's contents never change while a seat names it; seating writes only slots that nobody names, on a GPU once the
last batch that read them has ended there. Who may take a seat back, and when, is decided by whoever counts the
references (the engine's residency).
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.batch import BatchAdapters, WornPool
from adapters.config import AdapterConfig, BackboneSize
from adapters.fixed import FixedAdapters, PoolKey, Stack
from adapters.frontend import indices
from adapters.pool import Pool
from adapters.shapes import head_shapes, method_shapes, norm_shapes, sites
from adapters.streams import Turns

HEAD_CLASS = 16
_FEW = 2  # kinds of norms, which cost a batch little

Slot = tuple[PoolKey, int]
PoolName = tuple[PoolKey, int]
"""A pool's key and its number."""


@dataclass(frozen=True)
class Seat:
    """Where one adapter sits: its slot in the pool of its method, its norms and its head (None where it has none)."""

    config: AdapterConfig
    lowest_layer: int
    head: Slot
    method: Slot | None = None
    norms: Slot | None = None

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Every slot that it names."""
        return tuple(slot for slot in (self.method, self.norms, self.head) if slot is not None)


@dataclass
class Bank:
    """The adapters that are on the device, for a backbone of ``size``.

    ``limit``: slots of each pool. Every method may be called from any thread; seats are taken one after the
    other, and batches are dressed meanwhile. ``order``: the streams of the device, if they are not
    to be its own.
    """

    size: BackboneSize
    limit: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    order: InitVar[Turns | None] = None

    def __post_init__(self, order: Turns | None) -> None:
        self.turns = order or Turns.on(self.device)
        self._pools: dict[PoolKey, Pool] = {}
        self._seating = threading.Lock()  # one writer; held while weights are copied
        self._lock = threading.Lock()  # the books: who has which slot; never held while anything is copied
        self._dropped: deque[PoolName] = deque()

    @property
    def bytes(self) -> int:
        """Bytes of all pools on the device."""
        with self._lock:
            return sum(pool.bytes for pool in self._pools.values())

    def seat(self, config: AdapterConfig, tensors: Mapping[str, Tensor]) -> Seat:
        """Copy an adapter (tensors named as on disk) to free slots. Where a GPU has no memory for a new pool, those
        that nobody sits in make room.

        Raises :class:`~adapters.errors.BankFull`, or torch's ``OutOfMemoryError``, with nothing taken.
        """
        wanted = self._wanted(config, tensors)
        taken: dict[str, Slot] = {}
        with self._seating:
            try:
                for role, (key, shapes, values) in wanted.items():
                    pool = self._pools.get(key) or self._new_pool(shapes, role)
                    with self._lock:
                        self._pools[key] = pool
                        taken[role] = (key, pool.take())
                    self.turns.write(taken[role], pool.filling(taken[role][1], values))
            except BaseException:  # no room in the pool, or none on the device
                with self._lock:
                    for key, slot in taken.values():
                        self._pools[key].give_back(slot)
                raise
        lowest = config.lowest_layer(self.size.layers)
        return Seat(config, lowest, taken["head"], taken.get("method"), taken.get("norms"))

    def prepare(self) -> None:
        """Make memory for the next adapter of a kind that was seated before, which then need not wait for it: to be
        called when a seating is over."""
        with self._seating:
            with self._lock:
                preparations = [pool.preparation() for pool in self._pools.values()]
            for prepare in preparations:
                prepare()

    def unseat(self, seat: Seat) -> None:
        """Free the slots of ``seat``, which no batch may wear any more; what a GPU was given until now may."""
        with self._lock:
            for key, number in seat.slots:
                self._pools[key].give_back(number)

    def dropped(self) -> list[PoolName]:
        """The pools that were dropped since this was asked last: what was recorded of them is of no use any more."""
        found = []
        while self._dropped:
            found.append(self._dropped.popleft())
        return found

    @contextlib.contextmanager
    def reading(self, seats: Sequence[Seat]) -> Iterator[None]:
        """What the device is given in here wears these seats: their slots are not written again before it has run.
        Needed where they may ever be given back."""
        with self.turns.reading({slot for seat in seats for slot in seat.slots}):
            yield

    def dress(self, seats: Sequence[Seat]) -> BatchAdapters:
        """What the rows of a batch wear: row i wears ``seats[i]``."""
        self.turns.ready({slot for seat in seats for slot in seat.slots})
        with self._lock:
            return BatchAdapters(
                rows=len(seats),
                lowest_layer=min(seat.lowest_layer for seat in seats),
                method=self._worn([seat.method for seat in seats]),
                norms=self._worn([seat.norms for seat in seats]),
                heads=self._worn([seat.head for seat in seats]),
            )

    def dress_fixed(self, seats: Sequence[Seat], rows: int) -> FixedAdapters:
        """The same in operations that do not depend on which slots the rows wear, nor on which rows wear something of a
        pool: row i of ``rows`` wears ``seats[i]``, and those beyond wear nothing."""
        self.turns.ready({slot for seat in seats for slot in seat.slots})
        numbers: list[list[int]] = []

        def stacks(slots: Sequence[Slot | None], also: Collection[PoolKey] = ()) -> tuple[Stack, ...]:
            keys = sorted({slot[0] for slot in slots if slot is not None} | {*also}, key=repr)
            first = len(numbers)
            for key in keys:
                worn = [slot[1] if slot is not None and slot[0] == key else 0 for slot in slots]
                numbers.append(worn + [0] * (rows - len(worn)))
            pools = [self._pools[key] for key in keys]
            return tuple(
                Stack(key, pool.number, pool.views, pool.sections, pool.sites, first + place)
                for place, (key, pool) in enumerate(zip(keys, pools, strict=True))
            )

        with self._lock:
            method = stacks([seat.method for seat in seats], self._cheap_methods())
            norms = stacks([seat.norms for seat in seats], self._few_norms())
            heads = stacks([seat.head for seat in seats], self._cheap_heads())
        slots = indices([slot for row in numbers for slot in row], self.device).view(-1, rows)
        return FixedAdapters(min(seat.lowest_layer for seat in seats), method, norms, heads, slots)

    def _cheap_methods(self) -> list[PoolKey]:
        """All that acts in the layers, where it costs little next to them: then batches need not be told apart by which
        of it their rows wear, and a graph does for all of them."""
        found = [key for key in self._pools if key[0] not in ("head", "norms")]
        return found if sum(int(str(key[1])) for key in found) <= self.size.hidden // 4 else []

    def _few_norms(self) -> list[PoolKey]:
        """All norms likewise."""
        found = [key for key in self._pools if key[0] == "norms"]
        return found if len(found) <= _FEW else []

    def _cheap_heads(self) -> list[PoolKey]:
        """All heads likewise, where they cost no more than one projection of a layer together."""
        heads = [key for key in self._pools if key[0] == "head"]
        return heads if sum(int(str(key[1])) for key in heads) <= self.size.hidden else []

    def _new_pool(self, shapes: Mapping[str, tuple[int, ...]], role: str) -> Pool:
        at = sites(shapes) if role == "method" else {}
        make = partial(Pool, shapes, self.limit, self.device, self.dtype, at)
        try:
            pool = make()
        except torch.OutOfMemoryError:
            if not self._drop_empty():
                raise
            pool = make()
        self.turns.seating.wait(self.turns.compute.record())  # where its zeros are being written
        return pool

    def _drop_empty(self) -> bool:
        """Whether there were pools that nobody sits in. What the device was given before may read and write them; what
        is given later keeps their tensors until it has been, and comes before whoever gets their memory."""
        with self._lock:
            empty = {key: pool for key, pool in self._pools.items() if pool.empty}
            for key in empty:
                del self._pools[key]
        if not empty:
            return False
        for stream in (self.turns.compute, self.turns.seating):
            stream.record().synchronize()
        self._dropped.extend((key, pool.number) for key, pool in empty.items())
        return True

    def _wanted(
        self, config: AdapterConfig, tensors: Mapping[str, Tensor]
    ) -> dict[str, tuple[PoolKey, dict[str, tuple[int, ...]], Mapping[str, Tensor]]]:
        classed = -(-config.vocab_size // HEAD_CLASS) * HEAD_CLASS
        extra = classed - config.vocab_size
        head = {
            "head.weight": F.pad(tensors["head.weight"], (0, 0, 0, extra)),
            "head.bias": F.pad(tensors["head.bias"], (0, extra), value=-math.inf),
        }
        size = self.size
        wanted: dict[str, tuple[PoolKey, dict[str, tuple[int, ...]], Mapping[str, Tensor]]] = {
            "head": (("head", classed), {"head.weight": (classed, size.hidden), "head.bias": (classed,)}, head)
        }
        inside = method_shapes(config, size)
        if inside:
            options = tuple(sorted(config.options.items()))  # hashable, as AdapterConfig sees to
            wanted["method"] = ((config.method, config.size, config.layers, options), inside, tensors)
        norms = norm_shapes(config, size)
        if norms:
            wanted["norms"] = (("norms", config.norm_layers(size.layers)), norms, tensors)
        assert head_shapes(config, size).keys() == head.keys()
        return wanted

    def _worn(self, places: Sequence[Slot | None]) -> tuple[WornPool, ...]:
        rows: dict[PoolKey, list[int]] = {}
        for row, place in enumerate(places):
            if place is not None:
                rows.setdefault(place[0], []).append(row)
        return tuple(
            WornPool(
                key=key,
                views=self._pools[key].views,
                sites=self._pools[key].sites,
                rows=None if len(found) == len(places) else indices(found, self.device),
                numbers=(numbers := tuple(places[row][1] for row in found)),  # type: ignore[index]
                slots=indices(numbers, self.device),
            )
            for key, found in rows.items()
        )
