"""What one store holds.

A folder is looked at whenever somebody asks. A remote store is looked at by a pace of its own, and who asks is told
what was seen there last.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from adapters.backoff import Backoff
from adapters.config import BackboneSize
from adapters.errors import AdapterError, StoreAway, UnknownAdapter
from adapters.loaded import LoadedAdapter
from adapters.location import Signature
from adapters.record import AdapterRecord

log = logging.getLogger("tongues.adapters")

PACE_S = 2.0
_FIRST_RETRY_S, _LONGEST_RETRY_S = 2.0, 60.0
_READERS = 16


class Store(Protocol):
    """Where adapters are read from: :class:`~adapters.store.AdapterStore`, :class:`~adapters.mms_store.MmsStore`.

    Of one that is ``remote`` every call may take long, and may raise :class:`~adapters.errors.StoreAway`.
    """

    @property
    def remote(self) -> bool: ...

    def signatures(self) -> dict[str, Signature]:
        """Each adapter that is there, and what changes with its version."""

    def here(self, record: AdapterRecord) -> bool:
        """Whether its files can be read without a network."""

    def record(self, name: str) -> AdapterRecord:
        """Of the current version. Raises :class:`UnknownAdapter` and :class:`AdapterError`."""

    def load(self, record: AdapterRecord, *, size: BackboneSize) -> LoadedAdapter:
        """The version that ``record`` is of. Raises :class:`AdapterError`."""


@dataclass(frozen=True)
class RegisteredAdapter:
    """One version of one adapter, and where it lies."""

    record: AdapterRecord
    store: Store

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def version(self) -> str:
        return self.record.version

    @property
    def here(self) -> bool:
        """Whether its files can be read without a network."""
        return self.store.here(self.record)


@dataclass(frozen=True)
class RefusedAdapter:
    """An adapter that is there and cannot be worn; ``error`` says why."""

    name: str
    store: Store
    error: AdapterError

    @property
    def here(self) -> bool:
        """Whether it lies on this machine."""
        return not self.store.remote


Found = Mapping[str, RegisteredAdapter | RefusedAdapter]
Each = Callable[[Callable[[str], None], Iterable[str]], Iterable[None]]


class Shelf:
    """A store whose records are read again only where their signature changed; for the backbone that ``fingerprint``
    and ``size`` are of."""

    def __init__(self, store: Store, fingerprint: str, size: BackboneSize) -> None:
        self.store = store
        self.away: str | None = None  #: why it could not be looked at, when that was tried last
        self._fingerprint, self._size = fingerprint, size
        self._read: dict[str, tuple[Signature, RegisteredAdapter | RefusedAdapter]] = {}

    def found(self) -> Found:
        """What is there, by name."""
        return self._look()

    def refresh(self) -> None:
        """What is :meth:`found` next is what is there now. Raises :class:`~adapters.errors.StoreAway`."""

    def _look(self, each: Each = map) -> Found:
        signatures = self.store.signatures()
        names = sorted(signatures)
        for _ in each(lambda name: self._look_at(name, signatures[name]), names):
            pass
        self._read = {name: self._read[name] for name in names if name in self._read}
        return {name: known[1] for name, known in self._read.items()}

    def _look_at(self, name: str, signature: Signature) -> None:
        known = self._read.get(name)
        # a refused one in a folder may have been unreadable for a moment; an object is put whole
        if known and known[0] == signature and (self.store.remote or isinstance(known[1], RegisteredAdapter)):
            return
        try:
            record = self.store.record(name)
            record.check_fits(self._fingerprint, self._size)
            self._read[name] = signature, RegisteredAdapter(record, self.store)
        except UnknownAdapter:  # removed since it was listed
            self._read.pop(name, None)
        except AdapterError as error:
            self._read[name] = signature, RefusedAdapter(name, self.store, error)


class RemoteShelf(Shelf):
    """Looks in a thread of its own, ``pace_s`` seconds after the last look came to its end, or later where the store is
    away; what was seen last stands meanwhile. Never looks unless somebody asks what is there."""

    def __init__(
        self,
        store: Store,
        fingerprint: str,
        size: BackboneSize,
        *,
        pace_s: float = PACE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(store, fingerprint, size)
        self._standing: Found = {}
        self._pace_s, self._clock = pace_s, clock
        self._backoff = Backoff(_FIRST_RETRY_S, _LONGEST_RETRY_S)
        self._next_at = float("-inf")
        self._turn, self._asking = threading.Lock(), threading.Lock()
        self._looking: threading.Thread | None = None

    def found(self) -> Found:
        """What was seen last, by name; the next look begins where it is time for one."""
        with self._asking:
            now = self._clock()
            busy = self._looking is not None and self._looking.is_alive()
            if not busy and now >= self._next_at and self._backoff.due(now):
                self._looking = threading.Thread(target=self._look_beside, name=f"look at {self.store}", daemon=True)
                self._looking.start()
        return self._standing

    def wait(self, timeout_s: float) -> None:
        """Until the look that is going on is through, or for ``timeout_s``."""
        looking = self._looking
        if looking is not None:
            looking.join(timeout_s)

    def refresh(self) -> None:
        with self._turn:
            try:
                with ThreadPoolExecutor(_READERS, "look") as pool:
                    self._standing = self._look(pool.map)
            except Exception as error:
                self._backoff.failed(self._clock())
                if self.away is None:
                    log.warning("what was seen last of a store stands: %s", error)
                self.away = str(error)
                raise
            if self.away is not None:
                log.info("the store %s is there again", self.store)
            self.away = None
            self._backoff.worked()
            self._next_at = self._clock() + self._pace_s

    def _look_beside(self) -> None:
        try:
            self.refresh()
        except StoreAway:
            pass  # logged, and tried again
        except Exception:
            log.exception("the store %s cannot be looked at", self.store)
