"""How many requests are served at a time, and none any more when the service drains."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from adapters.errors import Draining, QueueFull


class Permits:
    """``most`` at a time. On the event loop alone."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.taken = 0

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Raises :class:`~adapters.errors.QueueFull` or :class:`~adapters.errors.Draining`."""
        if self._closed:
            raise Draining("the service is shutting down; send the request to another instance, or later")
        if self.taken >= self._most:
            raise QueueFull(f"{self.taken} requests are being served, which is all that are taken at once; try again")
        self.taken += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.taken -= 1
            if not self.taken:
                self._idle.set()

    async def close(self) -> None:
        """Give out no more, and wait until all are back."""
        self._closed = True
        await self._idle.wait()
