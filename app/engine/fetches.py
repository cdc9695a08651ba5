"""New versions from remote stores on their way to host memory, so that nothing else waits for the network."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from adapters.loaded import LoadedAdapter
from adapters.registry import RegisteredAdapter
from app.engine.job import Worn, worn_of
from app.engine.residency import Residency


class Fetches:
    """Each is fetched once, by a task of its own, and held from then on until it is let go of."""

    def __init__(self, residency: Residency) -> None:
        self._residency = residency
        self._tasks: dict[Worn, asyncio.Task[LoadedAdapter]] = {}
        self._ended = False

    def at_hand(self, adapter: RegisteredAdapter) -> bool:
        """Whether its host copy need not be waited for, as is so of all that lie on this machine; else it is on its way
        from now on.

        Raises :class:`~adapters.errors.AdapterError` where it could not be fetched."""
        worn = worn_of(adapter)
        if not adapter.store.remote or self._residency.at_hand(worn):
            return True
        if worn not in self._tasks:
            self._residency.hold(adapter)
            self._tasks[worn] = asyncio.create_task(self._residency.loaded(worn))
            self._tasks[worn].add_done_callback(self._end)
        elif self._tasks[worn].done():
            self.let_go(worn).result()
        return False

    def let_go(self, worn: Worn) -> asyncio.Task[LoadedAdapter]:
        """It is not needed any more. Returns the task that has fetched it, or is cancelled."""
        task = self._tasks.pop(worn)
        task.cancel()
        self._residency.let_go(worn)
        return task

    def keep(self, adapters: Iterable[RegisteredAdapter]) -> None:
        """Let go of all others: they are current no more, or what they were fetched for is done."""
        kept = {worn_of(adapter) for adapter in adapters}
        for worn in self._tasks.keys() - kept:
            self.let_go(worn)

    def news(self) -> bool:
        """Whether one has come, or has failed to, since this was asked last."""
        ended, self._ended = self._ended, False
        return ended

    async def wait(self, timeout_s: float) -> None:
        """Until all have come or have failed to, or for ``timeout_s``."""
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=timeout_s)

    def _end(self, task: asyncio.Task[LoadedAdapter]) -> None:
        self._ended = True
        if not task.cancelled():
            task.exception()  # told to who asks
