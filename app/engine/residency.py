"""Which adapters are on the device, which in host memory, and which only on disk.

Registered is not resident: the registry may know thousands. A request's adapter is loaded to host memory once, however
many wait for it; a batch takes a reference to each seat that it wears, and a seat is given away only when no batch
refers to it, the longest unused first. All of it runs on the event loop's thread, but for the reading of files.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from adapters.bank import Bank, Seat
from adapters.errors import AdapterError, BankFull
from adapters.registry import RegisteredAdapter
from adapters.store import LoadedAdapter
from app.engine.job import Worn

State = Literal["stored", "loading", "ready", "failed"]
Where = Literal["device", "host", "disk"]


@dataclass
class _Seated:
    seat: Seat
    references: int = 0


def worn_of(adapter: RegisteredAdapter) -> Worn:
    """What jobs bound to this version of the adapter carry."""
    return Worn(adapter.name, adapter.version)


class Residency:
    """Tiers of adapters over a bank.

    ``max_seats``: adapters on the device; ``max_host_bytes``: host copies kept when no request is bound to them.
    """

    def __init__(
        self,
        bank: Bank,
        load: Callable[[RegisteredAdapter], LoadedAdapter],
        *,
        max_seats: int,
        max_host_bytes: int,
    ) -> None:
        self._bank, self._load = bank, load
        self._max_seats, self._max_host_bytes = max_seats, max_host_bytes
        self._seated: OrderedDict[Worn, _Seated] = OrderedDict()
        self._host: OrderedDict[Worn, LoadedAdapter] = OrderedDict()
        self._bound: dict[Worn, int] = {}
        self._loading: dict[Worn, asyncio.Task[LoadedAdapter]] = {}
        self._failed: dict[Worn, AdapterError] = {}

    async def bind(self, adapter: RegisteredAdapter) -> LoadedAdapter:
        """Bind a request to this version: its host copy stays until :meth:`unbind`, even when its files go.

        Raises :class:`~adapters.errors.AdapterError` where it cannot be loaded.
        """
        worn = worn_of(adapter)
        self._bound[worn] = self._bound.get(worn, 0) + 1
        try:
            if worn in self._host:
                self._host.move_to_end(worn)
                return self._host[worn]
            if worn not in self._loading:
                self._loading[worn] = asyncio.create_task(self._read(adapter, worn))
            return await asyncio.shield(self._loading[worn])
        except BaseException:
            self.unbind(worn)
            raise

    def unbind(self, worn: Worn) -> None:
        """The request is done with it."""
        self._bound[worn] -= 1
        if not self._bound[worn]:
            del self._bound[worn]
        self._shrink_host()

    def take(self, worn: Worn) -> bool:
        """Seat an adapter that some request is bound to, if need be, and take a reference; False where no seat is free
        or can be freed. The caller gives the reference back with :meth:`release`."""
        seated = self._seated.get(worn)
        if seated is None:
            seated = self._seat(worn)
            if seated is None:
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

    def where(self, adapter: RegisteredAdapter) -> tuple[State, Where, str | None]:
        """State, the nearest tier, and the reason where it failed."""
        worn = worn_of(adapter)
        if worn in self._failed:
            return "failed", "disk", self._failed[worn].reason
        if worn in self._seated:
            return "ready", "device", None
        if worn in self._host:
            return "ready", "host", None
        return ("loading" if worn in self._loading else "stored"), "disk", None

    @property
    def seats(self) -> int:
        """Adapters on the device now."""
        return len(self._seated)

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

    def _seat(self, worn: Worn) -> _Seated | None:
        loaded = self._host[worn]
        while True:
            if len(self._seated) < self._max_seats:
                try:
                    seat = self._bank.seat(loaded.record.config, loaded.tensors)
                except BankFull:
                    pass
                else:
                    self._seated[worn] = _Seated(seat)
                    return self._seated[worn]
            victim = next((w for w, seated in self._seated.items() if not seated.references), None)
            if victim is None:
                return None
            self._bank.unseat(self._seated.pop(victim).seat)

    def _shrink_host(self) -> None:
        size = sum(_bytes(loaded) for loaded in self._host.values())
        for worn in list(self._host):
            if size <= self._max_host_bytes:
                return
            if worn not in self._bound:
                size -= _bytes(self._host.pop(worn))


def _bytes(loaded: LoadedAdapter) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in loaded.tensors.values())
