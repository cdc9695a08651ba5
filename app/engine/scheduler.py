"""Which windows run together next. Pure code: no torch, no asyncio, and the clock is passed in.

The job that is due first and can be seated leads the batch; others join in the order in which they are due, whatever
their languages, while the batch stays within its budget of padded frames, all are of the same part of the forward, and
no row is much shorter than the longest, since padding is computed like speech. Of several lanes none takes more than
its share of what waits: one would idle beside it. Jobs are due when they come; windows of long recordings a little
later, so that they give way to short clips and yet wait for no more than that.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

from app.engine.job import Batch, Job, Part, Worn

Seatable = Callable[[tuple[Worn, ...]], bool]


@dataclass(frozen=True)
class Budget:
    """Bounds of one batch: what it computes in frames, rows, and distinct adapters. A job that is over it
    all by itself, candidates and all, still runs, alone. ``computed``: how many frames so many rows are, the longest of
    so many frames; more than their product where a device knows few shapes. ``stretch``: how many times as long as the
    shortest row the longest may be. ``long_waits_s``: how much later windows of long recordings are due."""

    max_frames: int = 1_600
    max_rows: int = 32
    max_adapters: int = 32
    stretch: float = 2.0
    long_waits_s: float = 0.5
    computed: Callable[[int, int], int] = operator.mul


CPU_BUDGET = Budget(stretch=1.1)
"""A row more gains a CPU next to nothing, less than padding costs."""

GPU_BUDGET = Budget(max_frames=32_000, max_rows=128, max_adapters=128)
"""A GPU idles at what a CPU takes in one step."""


class Scheduler:
    """The queue of jobs, for ``lanes`` that run a batch each."""

    def __init__(self, budget: Budget, lanes: int = 1) -> None:
        self.budget = budget
        self._lanes = lanes
        self._queue: dict[int, Job] = {}

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, job: Job, now: float) -> None:
        """Queue ``job`` at the time ``now``."""
        job.times_s["queued"] = now
        self._queue[job.id] = job

    def cancel(self, request_id: str) -> list[Job]:
        """Take out the queued jobs of a request whose client has gone, and return them."""
        return self._remove([job for job in self._queue.values() if job.request_id == request_id])

    def drop(self, worn: Worn) -> list[Job]:
        """Take out the queued jobs that wear what can never be worn, and return them."""
        return self._remove([job for job in self._queue.values() if worn in job.worn])

    def wants(self) -> set[tuple[Worn, ...]]:
        """What the queued jobs wear."""
        return {job.worn for job in self._queue.values()}

    def waiting(self, *, long: bool = True) -> bool:
        """Whether any job waits for a batch; ``long``: as in :meth:`next_batch`."""
        return any(long or not job.long for job in self._queue.values())

    def next_batch(self, now: float, seatable: Seatable, *, long: bool = True) -> Batch | None:
        """The next batch, taken out of the queue; None where no job can run.

        ``seatable`` is asked, once, for what a job wears, all of it at the same time. Whoever gets the batch takes the
        references to its seats before anything else can happen. ``long``: whether windows of long recordings may run
        now.
        """
        rows: list[Job] = []
        asked: dict[tuple[Worn, ...], bool] = {}
        worn: set[Worn] = set()
        count = longest = shortest = taken = 0
        queued = [job for job in sorted(self._queue.values(), key=self._due) if long or not job.long]
        share = 0.0
        for job in queued:
            high = max(longest, job.frames)
            low = min(shortest or job.frames, job.frames)
            more = count + job.rows
            if rows and job.part != rows[0].part:
                continue
            if rows and (
                more > self.budget.max_rows
                or low * self.budget.stretch < high
                or self.budget.computed(more, high) > self.budget.max_frames
            ):
                continue
            if rows and taken + job.size / 2 > share:  # nearer to it without
                continue
            if rows and len(worn.union(job.worn)) > self.budget.max_adapters:
                continue
            if job.worn not in asked:
                asked[job.worn] = seatable(job.worn)
                if rows and not asked[job.worn]:
                    share = self._share(queued, rows[0].part, asked)
            if not asked[job.worn]:
                continue
            if not rows:
                share = self._share(queued, job.part, asked)
            rows.append(job)
            worn.update(job.worn)
            count, longest, shortest = more, high, low
            taken += job.size
            if count >= self.budget.max_rows:
                break
        for job in self._remove(rows):
            job.times_s["batched"] = now
        return Batch(tuple(rows)) if rows else None

    def _share(self, queued: list[Job], part: Part, asked: dict[tuple[Worn, ...], bool]) -> float:
        """Frames: a lane's share of what can run now, as far as is known."""
        return sum(job.size for job in queued if job.part == part and asked.get(job.worn, True)) / self._lanes

    def _due(self, job: Job) -> tuple[float, int]:
        return job.times_s["queued"] + (self.budget.long_waits_s if job.long else 0.0), job.id

    def _remove(self, jobs: list[Job]) -> list[Job]:
        for job in jobs:
            del self._queue[job.id]
        return jobs
