"""New versions of adapters while others are being served: the stores are watched, and taken from over HTTP.

A version that replaces one in use is first loaded, seated beside it and tried out; only then does its name point to it.
Where that fails, the old one goes on serving. Requests keep the version that they came for; what nobody holds any more
leaves the device and the memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

from adapters.decoding import Decoding
from adapters.errors import (
    AdapterFormatError,
    DecodingUnavailable,
    PublishConflict,
    StoreError,
    TonguesError,
    UnknownAdapter,
)
from adapters.reason import reason
from adapters.record import AdapterRecord
from adapters.registry import RegisteredAdapter, Registry, Snapshot, Store
from adapters.store import AdapterStore
from app.engine.fetches import Fetches
from app.engine.job import Worn, worn_of
from app.engine.residency import Residency

log = logging.getLogger("tongues.engine")

SWEEP_GRACE_S = 3_600.0
FIRST_FETCH_S = 10.0
_FIRST_RETRY_S, _LONGEST_RETRY_S = 2.0, 60.0


class Publishing:
    """Keeps what requests find the same as what the stores hold.

    ``try_out`` runs a forward with an adapter, and raises where it cannot be worn. ``pinned``: names that are always
    seated. ``sweeps``: old versions in the first store are deleted every hour, not only before another one is put.
    """

    def __init__(
        self,
        registry: Registry,
        residency: Residency,
        try_out: Callable[[RegisteredAdapter], Awaitable[None]],
        *,
        pinned: Sequence[str] = (),
        sweeps: bool = False,
    ) -> None:
        self._registry, self._residency, self._try_out = registry, residency, try_out
        self._fetches = Fetches(residency)
        self._pinned: dict[str, Worn | None] = dict.fromkeys(pinned)
        self._not_pinned: dict[str, str] = {}  # why
        self._publishing, self._changing = asyncio.Lock(), asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._seen: Snapshot | None = registry.snapshot
        self._retry_at, self._retry_s = 0.0, _FIRST_RETRY_S
        self._sweeps, self._sweep_at = sweeps, time.monotonic() + SWEEP_GRACE_S
        self.refused: dict[str, str] = {}  #: why a newer version than the one that is served is not served, by name

    async def start(self, watch_s: float | None) -> None:
        """Seat what is pinned, and look at the stores every ``watch_s`` seconds from now on; never where it is None.

        A pinned name that there is not is told in the log, and pinned as soon as there is: an adapter that was removed,
        or broken, keeps no other from being served.
        """
        for name in self._pinned:
            try:
                self._registry.resolve(name=name)
            except UnknownAdapter as error:
                away = f"; away: {self._registry.away}" if self._registry.away else ""
                log.warning("%s cannot be pinned yet: %s%s", name, error, away)
        await self._keep_pins()
        await self._fetches.wait(FIRST_FETCH_S)
        await self._keep_pins()
        if watch_s is not None:
            self._watch = asyncio.create_task(self._look_again(watch_s), name="watch")

    async def stop(self) -> None:
        """Look no more."""
        for task in (self._watch, self._sweeping):
            if task is not None:
                task.cancel()
                (ended,) = await asyncio.gather(task, return_exceptions=True)
                if isinstance(ended, Exception):
                    log.error("%s had failed", task.get_name(), exc_info=ended)
        self._fetches.keep([])

    async def refresh(self) -> None:
        """Serve what the stores hold now."""
        async with self._changing:
            await self._refresh()

    async def check(self, name: str, instead_of: str | None) -> None:
        """Raises :class:`~adapters.errors.PublishConflict` where a :meth:`put` would by now, and looks no further."""
        if instead_of is not None:
            await self.refresh()
            self._current(name, instead_of)

    async def put(
        self, name: str, record: bytes, files: Mapping[str, bytes], *, instead_of: str | None = None
    ) -> AdapterRecord:
        """Publish a version in the first store once it was tried out, and serve it. ``instead_of``: the version that
        must be current, ``""`` for none at all.

        Raises :class:`~adapters.errors.PublishConflict`, :class:`~adapters.errors.StoreError`, and
        :class:`~adapters.errors.AdapterError` where it cannot be worn; what was served before is served on.
        """
        async with self._publishing:
            await self.refresh()
            current = self._current(name, instead_of)
            store = _writable(self._registry.stores[0])
            size, fingerprint = self._registry.size, self._registry.fingerprint
            with _writing(store), contextlib.ExitStack() as held:
                await self._sweep(store)
                staged = await asyncio.to_thread(store.stage, name, record, files, fingerprint=fingerprint, size=size)
                self._check_default(staged)
                new = RegisteredAdapter(staged, store)
                held.callback(self._residency.let_go, self._residency.hold(new, again=True))
                await self._make_ready(new)
                here = current is None or current.store is store
                await asyncio.to_thread(store.commit, staged, instead_of=instead_of if here else None, size=size)
                await asyncio.to_thread(self._registry.refresh, store)
                await self.refresh()
            served = self._registry.snapshot.adapters.get(name)
            if served is None or served.version != staged.version:
                raise PublishConflict(f"{name}: {staged.version} was published, and another one took its place at once")
            return staged

    async def remove(self, name: str, *, instead_of: str | None = None) -> None:
        """Unpublish an adapter where it lies; one of the same name in a later store is found from then on.

        Raises :class:`~adapters.errors.UnknownAdapter`, :class:`~adapters.errors.PublishConflict` and
        :class:`~adapters.errors.StoreError`.
        """
        async with self._publishing:
            await self.refresh()
            current = self._current(name, instead_of)
            found = await asyncio.to_thread(self._registry.look)
            stores = [one.store for one in found.refused if one.name == name]
            if current is not None and name not in self.refused:
                stores = [current.store]
            if not stores and name in found.adapters:  # what is served on is an older version of it
                stores = [found.adapters[name].store]
            if not stores:
                raise UnknownAdapter(f"no adapter {name[:80]!r} to remove")
            store = _writable(stores[0])
            with _writing(store):
                await asyncio.to_thread(store.remove, name, instead_of=instead_of)
                await asyncio.to_thread(self._registry.refresh, store)
            await self.refresh()

    def _current(self, name: str, instead_of: str | None) -> RegisteredAdapter | None:
        current = self._registry.snapshot.adapters.get(name)
        version = current.version if current is not None else ""
        if instead_of is not None and instead_of != version:
            there_is = f"its version is {version}" if version else "there is no such adapter"
            raise PublishConflict(f"{name}: {there_is}, not {instead_of or 'absent'}")
        return current

    def _check_default(self, record: AdapterRecord) -> None:
        """Two defaults of a language are none: nobody would be answered in it any more."""
        for other in self._registry.snapshot.adapters.values():
            alike = other.record.default and other.record.language == record.language
            if record.default and alike and other.name != record.name:
                raise AdapterFormatError(
                    record.name,
                    f"its `default` is true, and {other.name!r} is the default for {record.language}: publish it as "
                    f"{other.name!r}, or with `default` false",
                )

    # --- within the lock ---

    async def _refresh(self) -> None:
        found = await asyncio.to_thread(self._registry.look)
        await self._keep_pins()
        fetched = self._fetches.news()
        if found is self._seen and not fetched and (not self.refused or time.monotonic() < self._retry_at):
            return
        before = self._registry.snapshot.adapters
        adapters = dict(found.adapters)
        broken = [one for one in found.refused if one.name in before and before[one.name].store is one.store]
        reasons = {one.name: one.error.reason for one in broken}
        for name, new in found.adapters.items():
            old = before.get(name)
            if old is None or worn_of(old) == worn_of(new) or self._residency.where(old).where != "device":
                continue
            try:
                if not self._fetches.at_hand(new):
                    adapters[name] = old
                    if name in self.refused:
                        reasons[name] = self.refused[name]
                    continue
                await self._make_ready(new)
            except Exception as error:  # of this one alone: others are published
                if not isinstance(error, TonguesError):
                    log.exception("%s: version %s cannot be made ready", name, new.version)
                reasons[name] = f"version {new.version} is not served: {reason(error)}"
        for name, why in reasons.items():
            log.warning("%s: version %s is served on: %s", name, before[name].version, why)
            adapters[name] = before[name]
        self.refused = reasons
        self._adopt(adapters, found)
        await self._keep_pins()
        self._fetches.keep(self._awaited(found))

    def _adopt(self, adapters: dict[str, RegisteredAdapter], found: Snapshot) -> None:
        before = self._registry.snapshot.adapters
        refused = [one for one in found.refused if one.name not in adapters or one.name not in self.refused]
        self._registry.adopt(Snapshot.of(adapters.values(), refused))
        self._seen = found
        self._retry_s = min(self._retry_s * 2, _LONGEST_RETRY_S) if self.refused else _FIRST_RETRY_S
        self._retry_at = time.monotonic() + self._retry_s
        for adapter in adapters.values():
            self._residency.revive(worn_of(adapter))
        for old in before.values():
            now = adapters.get(old.name)
            if now is None or worn_of(now) != worn_of(old):
                log.info("%s: version %s is replaced by %s", old.name, old.version, now.version if now else "nothing")
                self._residency.retire(worn_of(old))

    async def _make_ready(self, new: RegisteredAdapter) -> None:
        loaded = await self._residency.prepare(new, seated=True)
        if loaded.language_model is not None:
            with contextlib.suppress(DecodingUnavailable):  # it is heard greedily here, whatever it brings
                await asyncio.to_thread(Decoding(beam=True).check, loaded)
        await self._try_out(new)

    async def _keep_pins(self) -> None:
        """What is pinned by name has its current version seated for good, as soon as that can be."""
        for name, old in self._pinned.items():
            now = self._registry.snapshot.adapters.get(name)
            if now is not None and worn_of(now) == old:
                continue
            try:
                pinned = now is not None and self._fetches.at_hand(now) and await self._residency.pin(now)
            except Exception as error:
                if self._not_pinned.get(name) != str(error):
                    unforeseen = None if isinstance(error, TonguesError) else error
                    log.warning("%s cannot be pinned: %s", name, error, exc_info=unforeseen)
                self._not_pinned[name] = str(error)
                continue
            if old is not None and (pinned or now is None):
                self._residency.unpin(old)
                self._pinned[name] = None
            if now is not None and pinned:
                self._pinned[name] = worn_of(now)
                self._not_pinned.pop(name, None)

    def _awaited(self, found: Snapshot) -> list[RegisteredAdapter]:
        """Versions that are fetched: newer than those that are served, or to be pinned."""
        served = self._registry.snapshot.adapters
        newer = [new for name, new in found.adapters.items() if served.get(name) is not new]
        return newer + [served[name] for name, pinned in self._pinned.items() if name in served and pinned is None]

    async def _sweep(self, store: AdapterStore) -> None:
        """What is published meanwhile is too new to be swept away. Who may write a store need not have the right to
        delete there."""
        served = [one.record for one in self._registry.snapshot.adapters.values() if one.store is store]
        self._sweep_at = time.monotonic() + SWEEP_GRACE_S
        try:
            await asyncio.to_thread(store.sweep, SWEEP_GRACE_S, served)
        except (OSError, StoreError) as error:
            log.warning("old versions stay: %s", error)

    async def _look_again(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.refresh()
                store = self._registry.stores[0]
                if self._sweeps and isinstance(store, AdapterStore) and time.monotonic() > self._sweep_at:
                    self._sweeping = asyncio.create_task(self._sweep(store), name="sweep")
            except Exception:  # a folder that is away for a moment, say: the next look may do better
                log.exception("the adapters cannot be looked at")


def _writable(store: Store) -> AdapterStore:
    if not isinstance(store, AdapterStore):
        raise StoreError(f"{store!r} is read only: what is published goes to a folder of adapters")
    return store


@contextlib.contextmanager
def _writing(store: AdapterStore) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"the store {store} cannot be changed: {error}") from error
