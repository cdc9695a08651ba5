"""Adapters in host memory: read once for all who wait, kept within bytes, and not read again at once where that failed.

The books are kept on the event loop's thread alone.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Container
from concurrent.futures import ThreadPoolExecutor

from adapters.backoff import Backoff
from adapters.errors import AdapterCorrupt, AdapterError
from adapters.loaded import LoadedAdapter
from adapters.registry import RegisteredAdapter
from app.engine.job import Worn
from app.engine.whereabouts import Whereabouts, unloaded

_FIRST_RETRY_S, _LONGEST_RETRY_S = 1.0, 60.0
_READERS, _FETCHERS = 2, 8


class HostCopies:
    """``max_bytes``: kept of copies that nobody holds; ``held``: those that somebody does."""

    def __init__(
        self,
        load: Callable[[RegisteredAdapter], LoadedAdapter],
        *,
        max_bytes: int,
        held: Container[Worn],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load, self._max_bytes, self._held, self._clock = load, max_bytes, held, clock
        # threads of their own: a slow disk holds up nobody else, and a slow network no disk
        self._readers, self._fetchers = ThreadPoolExecutor(_READERS, "load"), ThreadPoolExecutor(_FETCHERS, "fetch")
        self._copies: OrderedDict[Worn, LoadedAdapter] = OrderedDict()
        self._loading: dict[Worn, asyncio.Task[LoadedAdapter]] = {}
        self._failed: dict[Worn, AdapterError] = {}
        self._backoffs: dict[Worn, Backoff] = {}

    def __contains__(self, worn: Worn) -> bool:
        return worn in self._copies

    def __getitem__(self, worn: Worn) -> LoadedAdapter:
        return self._copies[worn]

    def begin(self, adapter: RegisteredAdapter, worn: Worn, *, again: bool = False) -> None:
        """Its load begins now, unless there is a copy, or one is being made, or the last try failed a short while ago;
        ``again``: in that case too."""
        if worn in self._copies:
            self._copies.move_to_end(worn)
        elif worn not in self._loading and (again or self._due(worn)):
            self._loading[worn] = asyncio.create_task(self._read(adapter, worn))
            self._loading[worn].add_done_callback(lambda task: task.cancelled() or task.exception())

    async def loaded(self, worn: Worn) -> LoadedAdapter:
        """The copy of a version that is held. Raises :class:`~adapters.errors.AdapterError` where it cannot be
        loaded."""
        if worn in self._loading:
            return await asyncio.shield(self._loading[worn])
        if worn in self._copies:
            return self._copies[worn]
        raise self._failed.get(worn) or AdapterCorrupt(worn.name, f"version {worn.version} is gone")

    def shrink(self) -> None:
        """Let go of those that nobody holds, the longest unused first, until the others are within their bytes."""
        size = sum(loaded.bytes for loaded in self._copies.values())
        for worn in list(self._copies):
            if size <= self._max_bytes:
                return
            if worn not in self._held:
                size -= self._copies.pop(worn).bytes

    def drop(self, worn: Worn) -> None:
        """It is of no use any more."""
        self._copies.pop(worn, None)

    def forgive(self, worn: Worn) -> None:
        """Whether it ever failed does not matter any more."""
        self._failed.pop(worn, None)
        self._backoffs.pop(worn, None)

    def failure(self, worn: Worn) -> AdapterError | None:
        """What kept it from being loaded when that was tried last."""
        return self._failed.get(worn)

    def where(self, adapter: RegisteredAdapter, worn: Worn) -> Whereabouts:
        """Its state and the nearest tier, the device apart."""
        if worn in self._copies:
            return Whereabouts("ready", "host")
        away = unloaded(adapter)
        return Whereabouts("loading", away.where) if worn in self._loading else away

    def _due(self, worn: Worn) -> bool:
        return worn not in self._backoffs or self._backoffs[worn].due(self._clock())

    async def _read(self, adapter: RegisteredAdapter, worn: Worn) -> LoadedAdapter:
        threads = self._fetchers if adapter.store.remote else self._readers
        try:
            loaded = await asyncio.get_running_loop().run_in_executor(threads, self._load, adapter)
        except AdapterError as error:
            self._failed[worn] = error
            self._backoffs.setdefault(worn, Backoff(_FIRST_RETRY_S, _LONGEST_RETRY_S)).failed(self._clock())
            raise
        finally:
            del self._loading[worn]
        self.forgive(worn)
        self._copies[worn] = loaded
        self.shrink()  # those who waited for it may have gone
        return loaded
