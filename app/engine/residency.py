"""Which adapters are on the device, which in host memory, and which only on disk.

Registered is not resident: the registry may know thousands. A request's adapter is loaded to host memory
(:mod:`app.engine.copies`) and seated on the device once a batch wants it, in a thread beside the forwards of others. A
batch takes a reference to each seat that it wears.

A *want* is what one job needs at the same time: its adapter, or all of its candidates. Wants are served by their age. A
seat is given away only when no batch refers to it, it is not pinned and no older want needs it; first those that no
request holds, the longest unused before others. Where batches of several lanes never let go of any seat, a want that
has waited too long has some closed: they take no new references.

The books are kept on the event loop's thread alone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from adapters.bank import Bank, Seat
from adapters.loaded import LoadedAdapter
from adapters.registry import RegisteredAdapter
from app.engine.copies import HostCopies
from app.engine.job import Worn, worn_of
from app.engine.whereabouts import Whereabouts, unloaded

log = logging.getLogger("tongues.engine")

PATIENCE_S = 1.0
Want = tuple[Worn, ...]


@dataclass
class _Seated:
    seat: Seat
    references: int = 0


class Residency:
    """Tiers of adapters over a bank.

    ``max_seats``: adapters on the device; ``max_host_bytes``: host copies beyond those needed; ``patience_s``: how long
    a batch's references may keep others from a seat; ``clock``: tells when a failed load is tried again, in seconds.
    ``on_seated`` is called when one more may be worn or waited for, ``on_failure`` when one cannot get to the device.
    """

    def __init__(
        self,
        bank: Bank,
        load: Callable[[RegisteredAdapter], LoadedAdapter],
        *,
        max_seats: int,
        max_host_bytes: int,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
        on_seated: Callable[[], None] = lambda: None,
        on_failure: Callable[[Worn, Exception], None] = lambda worn, error: None,
    ) -> None:
        self._bank, self._max_seats, self._patience_s = bank, max_seats, patience_s
        self._on_seated, self._on_failure = on_seated, on_failure
        self._seater = ThreadPoolExecutor(1, "seat")
        self._seated: OrderedDict[Worn, _Seated] = OrderedDict()
        self._held: dict[Worn, int] = {}
        self._copies = HostCopies(load, max_bytes=max_host_bytes, held=self._held, clock=clock)
        self._pinned: set[Worn] = set()
        self._retired: set[Worn] = set()
        self._seating: dict[Worn, asyncio.Task[None]] = {}
        self._wants: dict[Want, float] = {}  # since when, oldest first
        self._closed: set[Worn] = set()

    # --- requests ---

    def hold(self, adapter: RegisteredAdapter, *, again: bool = False) -> Worn:
        """Hold on to this version until :meth:`let_go`, even when its files go; its load begins now, unless it failed a
        short while ago. ``again``: in that case too."""
        worn = worn_of(adapter)
        self._held[worn] = self._held.get(worn, 0) + 1
        self._copies.begin(adapter, worn, again=again)
        return worn

    async def loaded(self, worn: Worn) -> LoadedAdapter:
        """The host copy of a version that is held. Raises :class:`~adapters.errors.AdapterError` where it cannot be
        loaded."""
        return await self._copies.loaded(worn)

    def let_go(self, worn: Worn) -> None:
        """The request is done with it."""
        self._held[worn] -= 1
        if not self._held[worn]:
            del self._held[worn]
            for want in [want for want in self._wants if worn in want]:
                self.forget(want)
            self._drop_retired(worn)
        self._copies.shrink()

    # --- batches ---

    def fits(self, want: Iterable[Worn]) -> bool:
        """Whether these can be on the device at once, beside what is pinned now."""
        return len(self._pinned.union(want)) <= self._max_seats

    def seatable(self, want: Want, now: float) -> bool:
        """Whether a batch may wear these, which some request holds, all at once; else they wait for it from now on.
        Nobody loses a seat here: :meth:`serve` is for when the batch has taken its references."""
        if all(worn in self._seated and worn not in self._closed for worn in want):
            return True
        self._wants.setdefault(want, now)
        return False

    def take(self, want: Want) -> None:
        """Take references for a batch to what is :meth:`seatable`, in the same moment, until :meth:`release`."""
        self._wants.pop(want, None)
        for worn in want:
            self._seated.move_to_end(worn)
            self._seated[worn].references += 1

    def seat(self, worn: Worn) -> Seat:
        """The seat of an adapter that a reference was taken to."""
        return self._seated[worn].seat

    def release(self, wants: Iterable[Want], now: float) -> None:
        """Give the references of each :meth:`take` of a batch back."""
        for want in wants:
            for worn in want:
                self._seated[worn].references -= 1
                self._drop_retired(worn)
        self.serve(now)

    def forget(self, want: Want) -> None:
        """Nobody waits for these any more."""
        self._wants.pop(want, None)
        self._closed.clear()  # whoever still needs that has them closed again

    def serve(self, now: float, *, held: bool = True) -> None:
        """Start seating what wants need, the oldest first; to be called after each try to make a batch. ``held``: on
        seats too that requests hold but no batch wears."""
        self._closed.clear()
        if not self._wants:
            return
        older: set[Worn] = set()
        unused = self._unused()
        for want, since in list(self._wants.items()):
            if not self.fits(want):  # since a pin went to a newer version: nobody makes room in vain
                continue
            impatient = now - since >= self._patience_s
            if not impatient and not self._room(1, unused, held=held):
                break  # nor is there any for who came later
            for worn in want:
                older.add(worn)
                unused.pop(worn, None)
            missing = [worn for worn in dict.fromkeys(want) if worn not in self._seated and worn not in self._seating]
            if missing and self._room(len(missing), unused, held=held or impatient):
                self._clear(len(missing), unused)
                for worn in missing:
                    self._start_seating(worn)
            elif missing and impatient:
                self._close(len(missing), keep=older)

    async def stop(self) -> None:
        """Load and seat no more."""
        self._copies.stop()
        await asyncio.gather(*self._seating.values(), return_exceptions=True)
        self._seater.shutdown(wait=False, cancel_futures=True)

    # --- publishing ---

    async def prepare(self, adapter: RegisteredAdapter, *, seated: bool) -> LoadedAdapter:
        """Load a version and check it; with ``seated``, put it on the device where a seat is free, or of use to nobody.

        Raises :class:`~adapters.errors.AdapterError`."""
        worn = self.hold(adapter, again=True)
        try:
            loaded = await self.loaded(worn)
            if seated and worn not in self._seated and worn not in self._seating:
                unused = self._unused()
                if self._room(1, unused, held=False):
                    self._clear(1, unused)
                    self._start_seating(worn)
            if worn in self._seating:
                await asyncio.shield(self._seating[worn])
            return loaded
        finally:
            self.let_go(worn)

    async def pin(self, adapter: RegisteredAdapter) -> bool:
        """Seat it for good; False where no seat was to be had yet. Raises :class:`~adapters.errors.AdapterError`."""
        worn = worn_of(adapter)
        if worn not in self._pinned:
            await self.prepare(adapter, seated=True)
            if worn not in self._seated:
                return False
            self._pinned.add(self.hold(adapter))
        return True

    def unpin(self, worn: Worn) -> None:
        """It may be given away like any other."""
        if worn in self._pinned:
            self._pinned.remove(worn)
            self.let_go(worn)

    def revive(self, worn: Worn) -> None:
        """It is current, whatever it was before."""
        self._retired.discard(worn)

    def retire(self, worn: Worn) -> None:
        """No further request will hold it: its seat and its copy go as soon as nobody needs them."""
        self._copies.forgive(worn)
        self._retired.add(worn)
        self._drop_retired(worn)

    # --- looking ---

    def where(self, adapter: RegisteredAdapter) -> Whereabouts:
        """Its state, the nearest tier, and the reason where it failed."""
        worn = worn_of(adapter)
        failure = self._copies.failure(worn)
        if failure is not None:
            return Whereabouts("failed", unloaded(adapter).where, reason=failure.reason)
        if worn in self._seated:
            return Whereabouts("ready", "device", pinned=worn in self._pinned)
        return self._copies.where(adapter, worn)

    def at_hand(self, worn: Worn) -> bool:
        """Whether it is on the device or in host memory."""
        return worn in self._seated or worn in self._copies

    @property
    def seats(self) -> int:
        """Adapters on the device now."""
        return len(self._seated)

    # --- to the device ---

    def _unused(self) -> dict[Worn, None]:
        """Seats that may be given away: those that no request holds before others, the longest unused first."""
        found = (worn for worn in self._unpinned() if not self._seated[worn].references)
        return dict.fromkeys(sorted(found, key=self._held.__contains__))

    def _room(self, count: int, unused: dict[Worn, None], *, held: bool) -> bool:
        """Whether ``count`` seats are free, or can be had of ``unused``; ``held``: of those too that requests hold."""
        given = list(islice(unused, self._lacking(count)))
        return len(given) == self._lacking(count) and (held or not given or given[-1] not in self._held)

    def _clear(self, count: int, unused: dict[Worn, None]) -> None:
        """Give so many of ``unused`` away that ``count`` seats are free."""
        for worn in list(islice(unused, self._lacking(count))):
            del unused[worn]
            self._unseat(worn)

    def _close(self, count: int, keep: Collection[Worn]) -> None:
        """Close seats until ``count`` come free."""
        others = (worn for worn in self._unpinned() if worn not in keep)
        self._closed.update(islice(others, self._lacking(count)))

    def _lacking(self, count: int) -> int:
        return max(0, count + len(self._seated) + len(self._seating) - self._max_seats)

    def _unpinned(self) -> Iterator[Worn]:
        return (worn for worn in self._seated if worn not in self._pinned)

    def _start_seating(self, worn: Worn) -> None:
        self._seating[worn] = asyncio.create_task(self._seat(worn, self._copies[worn]))

    async def _seat(self, worn: Worn, loaded: LoadedAdapter) -> None:
        try:
            loop, config = asyncio.get_running_loop(), loaded.record.config
            seat = await loop.run_in_executor(self._seater, self._bank.seat, config, loaded.tensors)
        except Exception as error:
            log.exception("%s cannot be seated", worn.name)
            for want in [want for want in self._wants if worn in want]:
                self.forget(want)
            self._on_failure(worn, error)
        else:
            self._seated[worn] = _Seated(seat)
            self._copies.seat(worn, loaded)
            self._seater.submit(self._bank.prepare)
        finally:
            del self._seating[worn]
        self._drop_retired(worn)
        self._on_seated()

    def _unseat(self, worn: Worn) -> None:
        self._bank.unseat(self._seated.pop(worn).seat)
        self._copies.unseat(worn)

    def _drop_retired(self, worn: Worn) -> None:
        seated = self._seated.get(worn)
        busy = worn in self._held or worn in self._seating or (seated is not None and seated.references > 0)
        if worn not in self._retired or busy:
            return
        if seated is not None:
            self._unseat(worn)
        self._copies.drop(worn)
        self._retired.discard(worn)
