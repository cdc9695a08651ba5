"""What one store holds.

A folder is looked at whenever somebody asks. A remote store is looked at by a pace of its own, and who asks is told
what was seen there last.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from adapters.backoff import Backoff
from adapters.config import BackboneSize
from adapters.errors import AdapterAway, AdapterError, StoreAway, UnknownAdapter
from adapters.loaded import LoadedAdapter
from adapters.location import Signature
from adapters.reason import reason
from adapters.record import AdapterRecord
from adapters.shapes import parameter_count

log = logging.getLogger("tongues.adapters")

_FIRST_RETRY_S, _LONGEST_RETRY_S = 2.0, 60.0
_READERS = 16
_MOST_UNREAD = 16  # records, after which a store is taken to be away


class Store(Protocol):
    """Where adapters are read from: :class:`~adapters.store.AdapterStore`, :class:`~adapters.mms_store.MmsStore`.

    Of one that is ``remote`` every call may take long, and may raise :class:`~adapters.errors.StoreAway`.
    """

    @property
    def remote(self) -> bool: ...

    @property
    def pace_s(self) -> float:
        """Between two looks at what is there, at least; infinite where that never changes."""

    def signatures(self) -> Mapping[str, Signature]:
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

    def parameters(self, size: BackboneSize) -> int:
        """How many it has on such a backbone, counted once. Raises ``ValueError`` where it has no place there."""
        if size not in self._counted:
            self._counted[size] = parameter_count(self.record.config, size)
        return self._counted[size]

    @cached_property
    def _counted(self) -> dict[BackboneSize, int]:
        return {}


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
        self.away: str | None = None  #: why it, or a part of it, could not be looked at when that was tried last
        self._fingerprint, self._size = fingerprint, size
        self._read: dict[str, tuple[Signature | None, RegisteredAdapter | RefusedAdapter]] = {}
        self._looked = False
        self._unread: dict[str, Exception] = {}  # what kept records from being read, at the last look

    def found(self) -> Found:
        """What is there, by name; where it cannot be looked at any more, what was seen there last. Raises ``OSError``
        where it never could."""
        try:
            found = self._look()
        except OSError as error:
            if not self._looked:
                raise
            if self.away is None:
                log.warning("what was seen last of a store stands: %s", error)
            self.away = reason(error)
            return self._known()
        self._looked, self.away = True, None
        return found

    def refresh(self) -> None:
        """What is :meth:`found` next is what is there now. Raises :class:`~adapters.errors.StoreAway`."""

    def _look(self, each: Each = map) -> Found:
        signatures = self.store.signatures()
        names = sorted(signatures)
        before, self._unread = self._unread, {}
        for _ in each(lambda name: self._look_at(name, signatures[name]), names):
            pass
        self._read = {name: self._read[name] for name in names if name in self._read}
        for name in self._unread.keys() - before.keys():
            error = self._unread[name]
            trace = None if isinstance(error, StoreAway) else error
            log.warning("the record of %s in %s cannot be read: %s", name, self.store, reason(error), exc_info=trace)
        return self._known()

    def _known(self) -> Found:
        return {name: known[1] for name, known in self._read.items()}

    def _look_at(self, name: str, signature: Signature) -> None:
        if len(self._unread) >= _MOST_UNREAD:
            return  # what is known of it stands
        known = self._read.get(name)
        # a refused one in a folder may have been unreadable for a moment; an object is put whole
        if known and known[0] == signature and (self.store.remote or isinstance(known[1], RegisteredAdapter)):
            return
        try:
            record = self.store.record(name)
            record.check_fits(self._fingerprint, self._size)
            found = RegisteredAdapter(record, self.store)
            with contextlib.suppress(ValueError):
                found.parameters(self._size)  # here, not where all of a thousand are listed
            self._read[name] = signature, found
        except UnknownAdapter:  # removed since it was listed
            self._read.pop(name, None)
        except AdapterError as error:
            self._read[name] = signature, RefusedAdapter(name, self.store, error)
        except Exception as error:  # of this one alone; it is read again at the next look
            self._unread[name] = error
            if known is None or isinstance(known[1], RefusedAdapter):
                self._read[name] = None, RefusedAdapter(name, self.store, AdapterAway(name, reason(error)))
            else:
                self._read[name] = None, known[1]


class RemoteShelf(Shelf):
    """Looks in a thread of its own, at the store's pace after the last look came to its end, or later where the store
    is away; what was seen last stands meanwhile. Never looks unless somebody asks what is there."""

    def __init__(
        self,
        store: Store,
        fingerprint: str,
        size: BackboneSize,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(store, fingerprint, size)
        self._standing: Found = {}
        self._clock = clock
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
                if len(self._unread) >= _MOST_UNREAD:
                    raise next(iter(self._unread.values()))
            except Exception as error:
                self._backoff.failed(self._clock())
                if self.away is None:
                    log.warning("what was seen last of a store stands: %s", error)
                self.away = reason(error)
                raise
            unread = next(iter(self._unread.values()), None)
            if self.away is not None and unread is None:
                log.info("the store %s is there again", self.store)
            self.away = reason(unread) if unread is not None else None
            self._backoff.worked()
            pace_s = self.store.pace_s
            self._next_at = self._clock() + (pace_s if unread is None else min(pace_s, _LONGEST_RETRY_S))

    def _look_beside(self) -> None:
        try:
            self.refresh()
        except StoreAway:
            pass  # logged, and tried again
        except Exception:
            log.exception("the store %s cannot be looked at", self.store)
