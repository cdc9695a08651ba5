"""Threads for beam searches, which take seconds where all else on the host takes milliseconds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Searches:
    """``threads`` of them, none of which decodes audio or reads files. Requests take turns, a step each."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="search")

    async def run(self, step: Callable[[], T]) -> T:
        """What ``step`` gives or raises. It cannot be interrupted: who is cancelled meanwhile ends with it, and holds
        his permit until then; what has not begun is not begun any more."""
        work = self._threads.submit(step)
        ended = asyncio.wrap_future(work)
        try:
            return await asyncio.shield(ended)
        except asyncio.CancelledError:
            work.cancel()
            while not ended.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([ended])
            raise

    async def stop(self) -> None:
        """Begin no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
