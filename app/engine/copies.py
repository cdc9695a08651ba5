"""Adapters in host memory: read once for all who wait, kept within bytes, and not read again at once where that failed.

Whatever is raised while one is read is that adapter's failure and nobody else's. The books are kept on the event loop's
thread alone.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Container
from concurrent.futures import ThreadPoolExecutor

from adapters.backoff import Backoff
from adapters.errors import AdapterAway, AdapterCorrupt, AdapterError, TonguesError
from adapters.loaded import LoadedAdapter
from adapters.reason import reason
from adapters.registry import RegisteredAdapter, Store
from app.engine.job import Worn
from app.engine.whereabouts import Whereabouts, unloaded

log = logging.getLogger("tongues.engine")

_FIRST_RETRY_S, _LONGEST_RETRY_S = 1.0, 60.0
_READERS, _FETCHERS = 2, 8
_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO})  # of the machine, not of the adapter
_MOST_FAILURES = 1_000  # that are remembered, of versions that may never be asked for again


class HostCopies:
    """``max_bytes``: kept of copies that nobody needs; ``held``: those that requests do. What is on the device is
    needed as well: its requests would read it again and again."""

    def __init__(
        self,
        load: Callable[[RegisteredAdapter], LoadedAdapter],
        *,
        max_bytes: int,
        held: Container[Worn],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load, self._max_bytes, self._held, self._clock = load, max_bytes, held, clock
        # threads of their own: a slow disk holds up nobody else, and a slow network no disk and no other network
        self._readers = ThreadPoolExecutor(_READERS, "load")
        self._fetchers: dict[Store, ThreadPoolExecutor] = {}
        self._copies: OrderedDict[Worn, LoadedAdapter] = OrderedDict()
        self._seated: set[Worn] = set()
        self._bytes = 0  # of all that are not seated; asked after every request, so not added up each time
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
        failure = self._failed.get(worn)
        raise _anew(failure) if failure else AdapterCorrupt(worn.name, f"version {worn.version} is gone")

    def stop(self) -> None:
        """Read no more. What is being read comes to its end, which nobody waits for."""
        for task in list(self._loading.values()):
            task.cancel()
        for threads in (self._readers, *self._fetchers.values()):
            threads.shutdown(wait=False, cancel_futures=True)

    def seat(self, worn: Worn, loaded: LoadedAdapter) -> None:
        """It is on the device from now on; ``loaded`` is its copy, which may have gone meanwhile."""
        if worn in self._copies:
            self._bytes -= loaded.bytes
        self._seated.add(worn)
        self._copies[worn] = loaded

    def unseat(self, worn: Worn) -> None:
        """It is not any more."""
        self._seated.discard(worn)
        self._bytes += self._copies[worn].bytes
        self.shrink()

    def shrink(self) -> None:
        """Let go of those that nobody needs, the longest unused first, until the others are within their bytes."""
        if self._bytes <= self._max_bytes:
            return
        needed = (self._held, self._seated)
        free = {worn: one.bytes for worn, one in self._copies.items() if not any(worn in some for some in needed)}
        left = sum(free.values())
        for worn, size in free.items():
            if left <= self._max_bytes:
                return
            self.drop(worn)
            left -= size

    def drop(self, worn: Worn) -> None:
        """It is of no use any more, and on the device no more."""
        if (loaded := self._copies.pop(worn, None)) is not None:
            self._bytes -= loaded.bytes

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
        threads = self._fetchers_of(adapter.store) if adapter.store.remote else self._readers
        try:
            loaded = await asyncio.get_running_loop().run_in_executor(threads, self._load, adapter)
        except Exception as error:
            if worn not in self._failed and not isinstance(error, TonguesError):
                log.exception("%s cannot be read", worn.name)
            self._failed[worn] = _failure(adapter, error)
            self._backoffs.setdefault(worn, Backoff(_FIRST_RETRY_S, _LONGEST_RETRY_S)).failed(self._clock())
            if len(self._failed) > _MOST_FAILURES:
                self.forgive(next(iter(self._failed)))
            raise _anew(self._failed[worn]) from error
        finally:
            del self._loading[worn]
        self.forgive(worn)
        if worn not in self._copies:
            self._copies[worn] = loaded
            self._bytes += loaded.bytes
        self.shrink()  # those who waited for it may have gone
        return loaded

    def _fetchers_of(self, store: Store) -> ThreadPoolExecutor:
        if store not in self._fetchers:
            self._fetchers[store] = ThreadPoolExecutor(_FETCHERS, "fetch")
        return self._fetchers[store]


def _failure(adapter: RegisteredAdapter, error: Exception) -> AdapterError:
    """What is kept of it, and told. It holds no frames, and so nothing of those who asked or of what was read."""
    if isinstance(error, AdapterError):
        passing = isinstance(error.__cause__, OSError) and error.__cause__.errno in _PASSING
        return AdapterAway(error.name, error.reason) if passing else _anew(error)
    kind = AdapterAway if adapter.store.remote else AdapterCorrupt
    said = reason(error)
    return kind(adapter.name, said if isinstance(error, TonguesError) else f"{type(error).__name__}: {said}")


def _anew(error: AdapterError) -> AdapterError:
    """The same one, which was never raised: raised again, one grows by the frames of each who asks."""
    return type(error)(error.name, error.reason)
