"""Which windows run together next. Pure code: no torch, no asyncio, and the clock is passed in.

The job that is due first and can be seated leads the batch; others of the same part of the forward join, whatever
their languages, while the batch stays within its budget of padded frames. Padding is computed like speech. So on a
CPU, where a row more gains next to nothing, they join in the order in which they are due, and no row is much shorter
than the longest; on a GPU, where a step has a price of its own, those join that make a frame of speech the cheapest
(:mod:`app.engine.packing`). Of several lanes none takes more than its share of what waits: one would idle beside it.
Jobs are due when they come; windows of long recordings a little later, so that they give way to short clips and yet
wait for no more than that.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

from app.engine.job import Batch, Job, Worn
from app.engine.packing import Packing

Seatable = Callable[[tuple[Worn, ...]], bool]


@dataclass(frozen=True)
class Budget:
    """Bounds of one batch: what it computes in frames, rows, and distinct adapters. A job that is over it
    all by itself, candidates and all, still runs, alone. ``computed``: how many frames so many rows are, the longest of
    so many frames; more than their product where a device knows few shapes. ``stretch``: how many times as long as the
    shortest row the longest may be, or with an ``overhead`` as the row that is due first. ``overhead``: how many frames
    a device computes in the time that a step takes besides, None where that is not to be weighed. ``long_waits_s``: how
    much later windows of long recordings are due."""

    max_frames: int = 1_600
    max_rows: int = 32
    max_adapters: int = 32
    stretch: float = 2.0
    overhead: int | None = None
    long_waits_s: float = 0.5
    computed: Callable[[int, int], int] = operator.mul


CPU_BUDGET = Budget(stretch=1.1)
"""A row more gains a CPU next to nothing, less than padding costs."""

GPU_BUDGET = Budget(max_frames=32_000, max_rows=128, max_adapters=128, overhead=1_500)
"""A GPU idles at what a CPU takes in one step. Its overhead is measured at start, with its budget."""


class Scheduler:
    """The queue of jobs, for ``lanes`` that run a batch each."""

    def __init__(self, budget: Budget, lanes: int = 1) -> None:
        self._lanes = lanes
        self.budget = budget
        self._queue: dict[int, Job] = {}
        self._short = 0  # frames of those that are not of long recordings

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, job: Job, now: float) -> None:
        """Queue ``job`` at the time ``now``."""
        job.times_s["queued"] = now
        self._queue[job.id] = job
        self._short += 0 if job.long else job.size

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

    @property
    def plenty(self) -> bool:
        """What waits fills a batch, long recordings aside: to wait for more gains nothing."""
        return self._short >= self.budget.max_frames

    def next_batch(self, now: float, seatable: Seatable, *, long: bool = True) -> Batch | None:
        """The next batch, taken out of the queue; None where no job can run.

        ``seatable`` is asked, once, for what a job wears, all of it at the same time. Whoever gets the batch takes the
        references to its seats before anything else can happen. ``long``: whether windows of long recordings may run
        now.
        """
        queued = [job for job in sorted(self._queue.values(), key=self._due) if long or not job.long]
        asked: dict[tuple[Worn, ...], bool] = {}

        def seated(job: Job) -> bool:
            if job.worn not in asked:
                asked[job.worn] = seatable(job.worn)
            return asked[job.worn]

        place = next((place for place, job in enumerate(queued) if seated(job)), None)
        if place is None:
            return None
        first = queued[place]
        others = [job for job in queued[place + 1 :] if job.part == first.part]
        if self._packing is not None:
            fitting = [job for job in others if seated(job)]
            rows = self._packing.best(first, fitting, self._share([first, *fitting], asked))
        else:
            rows = self._in_turn(first, others, seated, asked)
        for job in self._remove(rows):
            job.times_s["batched"] = now
        return Batch(tuple(rows))

    def _in_turn(
        self,
        first: Job,
        others: list[Job],
        seated: Callable[[Job], bool],
        asked: dict[tuple[Worn, ...], bool],
    ) -> list[Job]:
        """``first`` and as many of ``others`` as fit, in their order; who does not fit is not asked for."""
        rows, worn, taken = [first], {*first.worn}, first.size
        count, longest, shortest = first.rows, first.frames, first.frames
        share = self._share(rows + others, asked)
        for job in others:
            if count >= self.budget.max_rows:
                break
            high, low, more = max(longest, job.frames), min(shortest, job.frames), count + job.rows
            if (
                more > self.budget.max_rows
                or low * self.budget.stretch < high
                or self.budget.computed(more, high) > self.budget.max_frames
                or taken + job.size / 2 > share  # nearer to it without
                or len(worn.union(job.worn)) > self.budget.max_adapters
            ):
                continue
            if not seated(job):
                share = self._share([first, *others], asked)
                continue
            rows.append(job)
            worn.update(job.worn)
            count, longest, shortest = more, high, low
            taken += job.size
        return rows

    @property
    def budget(self) -> Budget:
        """May be set anew between two batches."""
        return self._budget

    @budget.setter
    def budget(self, budget: Budget) -> None:
        self._budget = budget
        most = min(budget.max_rows, budget.max_adapters)  # a row wears one
        self._packing = None
        if budget.overhead is not None:
            bounds = (budget.max_frames, most, budget.stretch)
            self._packing = Packing(budget.computed, budget.overhead, *bounds)

    def _share(self, jobs: list[Job], asked: dict[tuple[Worn, ...], bool]) -> float:
        """Frames: a lane's share of what can run now, as far as is known."""
        return sum(job.size for job in jobs if asked.get(job.worn, True)) / self._lanes

    def _due(self, job: Job) -> tuple[float, int]:
        return job.times_s["queued"] + (self.budget.long_waits_s if job.long else 0.0), job.id

    def _remove(self, jobs: list[Job]) -> list[Job]:
        for job in jobs:
            del self._queue[job.id]
            self._short -= 0 if job.long else job.size
        return jobs
