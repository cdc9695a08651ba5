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
from collections.abc import Awaitable, Callable, Sequence

from adapters.errors import AdapterMismatch, PublishConflict, TonguesError, UnknownAdapter
from adapters.record import AdapterRecord
from adapters.registry import RegisteredAdapter, Registry, Snapshot
from app.engine.residency import Residency, worn_of

log = logging.getLogger("tongues.engine")

SWEEP_GRACE_S = 3_600.0
_FIRST_RETRY_S, _LONGEST_RETRY_S = 2.0, 60.0


class Publishing:
    """Keeps what requests find the same as what the stores hold.

    ``try_out`` runs a forward with an adapter, and raises where it cannot be worn. ``pinned``: names that are always
    seated.
    """

    def __init__(
        self,
        registry: Registry,
        residency: Residency,
        try_out: Callable[[RegisteredAdapter], Awaitable[None]],
        *,
        pinned: Sequence[str] = (),
    ) -> None:
        self._registry, self._residency, self._try_out = registry, residency, try_out
        self._pinned = frozenset(pinned)
        self._changing = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None
        self._seen: Snapshot | None = registry.snapshot
        self._retry_at, self._retry_s = 0.0, _FIRST_RETRY_S
        self.refused: dict[str, str] = {}  #: why a newer version than the one that is served is not served, by name

    async def start(self, watch_s: float | None) -> None:
        """Seat what is pinned, and look at the stores every ``watch_s`` seconds from now on; never where it is None.

        Raises :class:`~adapters.errors.TonguesError` where a pinned adapter cannot be seated.
        """
        for name in sorted(self._pinned):
            await self._residency.pin(self._registry.resolve(name=name))
        if watch_s is not None:
            self._watch = asyncio.create_task(self._look_again(watch_s), name="watch")

    async def stop(self) -> None:
        """Look no more."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch

    async def refresh(self) -> None:
        """Serve what the stores hold now."""
        async with self._changing:
            await self._refresh()

    async def put(
        self, name: str, record: bytes, weights: bytes, vocab: bytes, *, instead_of: str | None = None
    ) -> AdapterRecord:
        """Publish a version in the first store, and serve it. ``instead_of``: the version that must be current, ``""``
        for none at all.

        Raises :class:`~adapters.errors.PublishConflict`, and :class:`~adapters.errors.AdapterError` where it cannot be
        worn; what was served before is served on.
        """
        async with self._changing:
            await self._refresh()
            current = self._current(name, instead_of)
            store, registry = self._registry.stores[0], self._registry
            published = await asyncio.to_thread(
                store.put,
                name,
                record,
                weights,
                vocab,
                hidden_size=registry.hidden_size,
                layer_count=registry.layer_count,
                fingerprint=registry.fingerprint,
                instead_of=instead_of if instead_of and current is not None and current.store is store else None,
            )
            await self._refresh()
            served = registry.snapshot.adapters.get(name)
            if served is None or served.version != published.version:
                raise AdapterMismatch(name, self.refused.get(name) or "stored, but another one of its name is served")
            await asyncio.to_thread(store.sweep, SWEEP_GRACE_S)
            return published

    async def remove(self, name: str, *, instead_of: str | None = None) -> None:
        """Unpublish an adapter where it lies; one of the same name in a later store is found from then on.

        Raises :class:`~adapters.errors.UnknownAdapter` and :class:`~adapters.errors.PublishConflict`.
        """
        async with self._changing:
            await self._refresh()
            current = self._current(name, instead_of)
            if current is None:
                refused = [one for one in self._registry.snapshot.refused if one.name == name]
                if not refused:
                    raise UnknownAdapter(f"no adapter {name[:80]!r} to remove")
                await asyncio.to_thread(refused[0].store.remove, name)
            else:
                await asyncio.to_thread(current.store.remove, name, instead_of=instead_of)
            await self._refresh()

    # --- within the lock ---

    def _current(self, name: str, instead_of: str | None) -> RegisteredAdapter | None:
        current = self._registry.snapshot.adapters.get(name)
        version = current.version if current is not None else ""
        if instead_of is not None and instead_of != version:
            there_is = f"its version is {version}" if version else "there is no such adapter"
            raise PublishConflict(f"{name}: {there_is}, not {instead_of or 'absent'}")
        return current

    async def _refresh(self) -> None:
        found = await asyncio.to_thread(self._registry.look)
        if found is self._seen and (not self.refused or time.monotonic() < self._retry_at):
            return
        before = self._registry.snapshot
        self.refused = {}
        adapters = dict(found.adapters)
        for name, new in found.adapters.items():
            old = before.adapters.get(name)
            if old is None or worn_of(old) == worn_of(new):
                continue
            try:
                await self._make_ready(old, new)
            except TonguesError as error:
                log.warning("%s: version %s is not served, %s is: %s", name, new.version, old.version, error)
                self.refused[name] = f"version {new.version} is not served: {error}"
                adapters[name] = old
        self._registry.adopt(Snapshot.of(adapters.values(), found.refused))
        self._seen = found
        self._retry_s = min(self._retry_s * 2, _LONGEST_RETRY_S) if self.refused else _FIRST_RETRY_S
        self._retry_at = time.monotonic() + self._retry_s
        for old in before.adapters.values():
            now = adapters.get(old.name)
            if now is None or worn_of(now) != worn_of(old):
                await self._let_old_one_go(old, now)

    async def _make_ready(self, old: RegisteredAdapter, new: RegisteredAdapter) -> None:
        hot = self._residency.where(old).where == "device"
        await self._residency.prepare(new, seated=hot)
        if hot:
            await self._try_out(new)

    async def _let_old_one_go(self, old: RegisteredAdapter, now: RegisteredAdapter | None) -> None:
        log.info("%s: version %s is replaced by %s", old.name, old.version, now.version if now else "nothing")
        if old.name in self._pinned:
            if now is not None:
                await self._residency.pin(now)
            self._residency.unpin(worn_of(old))
        self._residency.retire(worn_of(old))

    async def _look_again(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.refresh()
            except Exception:  # a folder that is away for a moment, say: the next look may do better
                log.exception("the adapters cannot be looked at")
