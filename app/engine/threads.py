"""The threads of the lanes, and one more for a batch that leaves cores idle.

Many threads on one small batch wait for each other more than they help, so each lane has its own. But a clip that comes
alone would be heard on one core of many: it runs in a thread that may use those of all lanes that have nothing to do.
There is one such thread, since each keeps as many helpers as it ever had.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor


class LaneThreads:
    """``in_flight`` for each of ``count`` lanes, and the wide one. Used from the event loop's thread alone."""

    def __init__(self, count: int, in_flight: int) -> None:
        self._own = [ThreadPoolExecutor(in_flight, thread_name_prefix=f"lane-{lane}") for lane in range(count)]
        self._wide = ThreadPoolExecutor(1, thread_name_prefix="lane-wide")
        self._wide_is_free = True

    def __getitem__(self, lane: int) -> Executor:
        """The lane's own."""
        return self._own[lane]

    def __iter__(self) -> Iterator[Executor]:
        return iter(self._own)

    @contextlib.contextmanager
    def of(self, lane: int, *, idle: int) -> Iterator[tuple[Executor, int]]:
        """Where a batch of ``lane`` runs while ``idle`` others have nothing to do, and of how many lanes it has the
        cores."""
        if idle <= 0 or not self._wide_is_free:
            yield self[lane], 1
            return
        self._wide_is_free = False
        try:
            yield self._wide, 1 + idle
        finally:
            self._wide_is_free = True

    def shutdown(self) -> None:
        """Wait for what runs."""
        for thread in (*self._own, self._wide):
            thread.shutdown()
