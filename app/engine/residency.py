"""Which adapters are on the device, which in host memory, and which only on disk.

Registered is not resident: the registry may know thousands. A request's adapter is loaded to host memory once, however
many wait for it, and seated on the device once a batch wants it; both run in threads, beside the forwards of others. A
batch takes a reference to each seat that it wears. A seat is given away only when no batch refers to it, the longest
unused first, and never while it is pinned. Where all are referred to, who waits too long has one closed: it takes no
new references and goes to him when its last batch is done.

The books are kept on the event loop's thread alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from adapters.bank import Bank, Seat
from adapters.errors import AdapterCorrupt, AdapterError
from adapters.registry import RegisteredAdapter
from adapters.store import LoadedAdapter
from app.engine.job import Worn
from app.engine.whereabouts import Whereabouts

log = logging.getLogger("tongues.engine")

PATIENCE_S = 1.0


@dataclass
class _Seated:
    seat: Seat
    references: int = 0
    closed_for: Worn | None = None  #: it takes no new references and goes to this one next


def worn_of(adapter: RegisteredAdapter) -> Worn:
    """What jobs bound to this version of the adapter carry."""
    return Worn(adapter.name, adapter.version)


class Residency:
    """Tiers of adapters over a bank.

    ``max_seats``: adapters on the device; ``max_host_bytes``: host copies kept when no request holds them;
    ``patience_s``: how long a batch's references may keep others from a seat. ``on_seated`` is called when one more may
    be worn, ``on_failure`` when one that was wanted on the device cannot get there.
    """

    def __init__(
        self,
        bank: Bank,
        load: Callable[[RegisteredAdapter], LoadedAdapter],
        *,
        max_seats: int,
        max_host_bytes: int,
        patience_s: float = PATIENCE_S,
        on_seated: Callable[[], None] = lambda: None,
        on_failure: Callable[[Worn, Exception], None] = lambda worn, error: None,
    ) -> None:
        self._bank, self._load = bank, load
        self._max_seats, self._max_host_bytes, self._patience_s = max_seats, max_host_bytes, patience_s
        self._on_seated, self._on_failure = on_seated, on_failure
        self._seated: OrderedDict[Worn, _Seated] = OrderedDict()
        self._host: OrderedDict[Worn, LoadedAdapter] = OrderedDict()
        self._held: dict[Worn, int] = {}
        self._pinned: set[Worn] = set()
        self._retired: set[Worn] = set()
        self._loading: dict[Worn, asyncio.Task[LoadedAdapter]] = {}
        self._seating: dict[Worn, asyncio.Task[None]] = {}
        self._waiting_since: dict[Worn, float] = {}
        self._failed: dict[Worn, AdapterError] = {}

    # --- requests ---

    def hold(self, adapter: RegisteredAdapter) -> Worn:
        """Hold on to this version until :meth:`let_go`, even when its files go; its load begins now."""
        worn = worn_of(adapter)
        self._held[worn] = self._held.get(worn, 0) + 1
        self._retired.discard(worn)
        if worn in self._host:
            self._host.move_to_end(worn)
        elif worn not in self._loading:
            self._loading[worn] = asyncio.create_task(self._read(adapter, worn))
            self._loading[worn].add_done_callback(_seen)
        return worn

    async def loaded(self, worn: Worn) -> LoadedAdapter:
        """The host copy of a version that is held. Raises :class:`~adapters.errors.AdapterError` where it cannot be
        loaded."""
        if worn in self._loading:
            return await asyncio.shield(self._loading[worn])
        if worn in self._host:
            return self._host[worn]
        raise self._failed.get(worn) or AdapterCorrupt(worn.name, f"version {worn.version} is gone")

    def let_go(self, worn: Worn) -> None:
        """The request is done with it."""
        self._held[worn] -= 1
        if not self._held[worn]:
            del self._held[worn]
            self._stop_waiting(worn)
            self._drop_retired(worn)
        self._shrink_host()

    # --- batches ---

    def take(self, worn: Worn, now: float) -> bool:
        """Take a reference to the seat of an adapter that some request holds; False where it has none yet, which
        it then waits for. The caller gives the reference back with :meth:`release`."""
        seated = self._seated.get(worn)
        if seated is None or seated.closed_for is not None:
            self._want(worn, now)
            return False
        self._seated.move_to_end(worn)
        seated.references += 1
        return True

    def seat(self, worn: Worn) -> Seat:
        """The seat of an adapter that a reference was taken to."""
        return self._seated[worn].seat

    def release(self, worn: Worn) -> None:
        """Give one reference back."""
        seated = self._seated[worn]
        assert seated.references > 0
        seated.references -= 1
        if seated.references:
            return
        if seated.closed_for is not None:
            self._unseat(worn)
            self._start_seating(seated.closed_for)
        else:
            self._drop_retired(worn)
            self.seat_waiting(1)

    def seat_waiting(self, most: int | None = None) -> None:
        """Give unused seats to those that wait, the longest waiting first; to be called where no batch can run."""
        for worn in sorted(self._waiting_since, key=self._waiting_since.__getitem__)[:most]:
            if not self._make_room():
                return
            self._start_seating(worn)

    # --- publishing ---

    async def prepare(self, adapter: RegisteredAdapter, *, seated: bool) -> None:
        """Load a version and check it; with ``seated``, put it on the device where a seat is free, or of use to nobody.

        Raises :class:`~adapters.errors.AdapterError`."""
        worn = self.hold(adapter)
        try:
            await self.loaded(worn)
            if seated and worn not in self._seated and worn not in self._seating and self._make_room(held=False):
                self._start_seating(worn)
            if worn in self._seating:
                await asyncio.shield(self._seating[worn])
        finally:
            self.let_go(worn)

    async def pin(self, adapter: RegisteredAdapter) -> None:
        """Seat it for good. Raises :class:`~adapters.errors.AdapterError`."""
        worn = worn_of(adapter)
        if worn not in self._pinned:
            await self.prepare(adapter, seated=True)
            self._pinned.add(self.hold(adapter))

    def unpin(self, worn: Worn) -> None:
        """It may be given away like any other."""
        if worn in self._pinned:
            self._pinned.remove(worn)
            self.let_go(worn)

    def retire(self, worn: Worn) -> None:
        """No further request will hold it: its seat and its copy go as soon as nobody needs them."""
        self._failed.pop(worn, None)
        self._retired.add(worn)
        self._drop_retired(worn)

    # --- looking ---

    def where(self, adapter: RegisteredAdapter) -> Whereabouts:
        """Its state, the nearest tier, and the reason where it failed."""
        worn = worn_of(adapter)
        if worn in self._failed:
            return Whereabouts("failed", "disk", reason=self._failed[worn].reason)
        if worn in self._seated:
            return Whereabouts("ready", "device", pinned=worn in self._pinned)
        if worn in self._host:
            return Whereabouts("ready", "host")
        return Whereabouts("loading" if worn in self._loading else "stored", "disk")

    @property
    def seats(self) -> int:
        """Adapters on the device now."""
        return len(self._seated)

    # --- to host memory ---

    async def _read(self, adapter: RegisteredAdapter, worn: Worn) -> LoadedAdapter:
        try:
            loaded = await asyncio.to_thread(self._load, adapter)
        except AdapterError as error:
            self._failed[worn] = error
            raise
        finally:
            del self._loading[worn]
        self._failed.pop(worn, None)
        self._host[worn] = loaded
        self._shrink_host()  # those who waited for it may have gone
        return loaded

    def _shrink_host(self) -> None:
        size = sum(_bytes(loaded) for loaded in self._host.values())
        for worn in list(self._host):
            if size <= self._max_host_bytes:
                return
            if worn not in self._held:
                size -= _bytes(self._host.pop(worn))

    # --- to the device ---

    def _want(self, worn: Worn, now: float) -> None:
        if worn in self._seating:
            return
        since = self._waiting_since.setdefault(worn, now)
        if self._make_room(held=False):
            self._start_seating(worn)
        elif now - since >= self._patience_s:
            self._close_one_for(worn)

    def _make_room(self, *, held: bool = True) -> bool:
        """A free seat, by giving away the longest unused one if need be: of those that no request holds first, and of
        them alone where ``held`` is false."""
        if len(self._seated) + len(self._seating) < self._max_seats:
            return True
        unused = [w for w, s in self._seated.items() if not s.references and w not in self._pinned]
        unused.sort(key=lambda w: w in self._held)
        if not unused or (unused[0] in self._held and not held):
            return False
        self._unseat(unused[0])
        return True

    def _close_one_for(self, worn: Worn) -> None:
        if any(seated.closed_for == worn for seated in self._seated.values()):
            return
        for other, seated in self._seated.items():
            if seated.closed_for is None and other not in self._pinned:
                seated.closed_for = worn
                return

    def _stop_waiting(self, worn: Worn) -> None:
        self._waiting_since.pop(worn, None)
        for seated in self._seated.values():
            if seated.closed_for == worn:
                seated.closed_for = None

    def _start_seating(self, worn: Worn) -> None:
        self._waiting_since.pop(worn, None)
        self._seating[worn] = asyncio.create_task(self._seat(worn, self._host[worn]))

    async def _seat(self, worn: Worn, loaded: LoadedAdapter) -> None:
        try:
            seat = await asyncio.to_thread(self._bank.seat, loaded.record.config, loaded.tensors)
        except Exception as error:
            log.exception("%s cannot be seated", worn.name)
            self._on_failure(worn, error)
            return
        finally:
            del self._seating[worn]
        self._seated[worn] = _Seated(seat)
        self._drop_retired(worn)
        self._on_seated()

    def _unseat(self, worn: Worn) -> None:
        self._bank.unseat(self._seated.pop(worn).seat)

    def _drop_retired(self, worn: Worn) -> None:
        if worn not in self._retired or worn in self._held or worn in self._seating:
            return
        seated = self._seated.get(worn)
        if seated is not None and seated.references:
            return
        if seated is not None:
            self._unseat(worn)
        self._host.pop(worn, None)
        self._retired.discard(worn)


def _bytes(loaded: LoadedAdapter) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in loaded.tensors.values())


def _seen(task: asyncio.Task[LoadedAdapter]) -> None:
    """Whoever waits is told of a failed load; where nobody does, it is no event of the loop's."""
    if not task.cancelled():
        task.exception()
