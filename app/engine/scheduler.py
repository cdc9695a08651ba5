"""Which windows run together next. Pure code: no torch, no asyncio, and the clock is passed in.

The oldest job that can be seated leads the batch; others join in the order of their age, whatever their languages,
while the batch stays within its budget of padded frames and no row is less than half as long as the longest, since
padding is computed like speech.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from app.engine.job import Batch, Job, Worn


@dataclass(frozen=True)
class Budget:
    """Bounds of one batch: ``longest row x rows`` in frames, rows, and distinct adapters. A job that is over the budget
    all by itself still runs, alone."""

    max_frames: int = 3_200
    max_rows: int = 32
    max_adapters: int = 32


class Scheduler:
    """The queue of jobs, oldest first."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._queue: dict[int, Job] = {}

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, job: Job, now: float) -> None:
        """Queue ``job`` at the time ``now``."""
        job.times_s["queued"] = now
        self._queue[job.id] = job

    def cancel(self, request_id: str) -> list[Job]:
        """Take out the queued jobs of a request whose client has gone, and return them."""
        gone = [job for job in self._queue.values() if job.request_id == request_id]
        for job in gone:
            del self._queue[job.id]
        return gone

    def next_batch(self, now: float, take: Callable[[Worn], bool]) -> Batch | None:
        """The next batch, taken out of the queue; None where no job can run.

        ``take`` is asked once for each adapter and, where it can be seated, takes the batch's reference to it in the
        same moment.
        """
        rows: list[Job] = []
        asked: dict[Worn, bool] = {}
        longest, shortest = 0, 0
        for job in self._queue.values():
            high = max(longest, job.frames)
            low = min(shortest or job.frames, job.frames)
            if rows and (high * (len(rows) + 1) > self.budget.max_frames or low * 2 < high):
                continue
            if job.worn not in asked:
                if sum(asked.values()) == self.budget.max_adapters:
                    continue
                asked[job.worn] = take(job.worn)
            if not asked[job.worn]:
                continue
            rows.append(job)
            longest, shortest = high, low
            if len(rows) == self.budget.max_rows:
                break
        if not rows:
            return None
        for job in rows:
            job.times_s["batched"] = now
            del self._queue[job.id]
        return Batch(tuple(rows))
