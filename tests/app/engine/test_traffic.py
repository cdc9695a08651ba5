"""Scheduler and residency together, over random traffic with a clock of its own: nothing starves, nothing is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.bank import Seat
from adapters.windows import Window
from app.engine.job import Batch, Job, Worn
from app.engine.residency import Residency, worn_of
from app.engine.scheduler import Budget, Scheduler
from tests.app.engine.test_residency import CONFIG, Files, adapter

BUDGET = Budget(max_frames=1_000, max_rows=8, max_adapters=3, long_waits_s=2.0)
WINDOW = Window(0, np.zeros(1, np.float32), 0, 0)
NAMES = "abcdefgh"


class SeatsOnly:
    """In the bank's place: no weights, but it knows who sits where, and notices what must not happen."""

    def __init__(self, limit: int) -> None:
        self.limit, self.taken = limit, 0

    def seat(self, *_: Any) -> Seat:
        assert self.taken < self.limit, "more are seated than there are seats"
        self.taken += 1
        return Seat(CONFIG, 0, (("head",), self.taken))

    def unseat(self, _: Seat) -> None:
        self.taken -= 1


@dataclass
class Traffic:
    """Jobs to come, and the lanes that run them: one tick of the clock is one batch in each lane."""

    jobs: list[tuple[int, int, str, bool]]  # when, frames, adapter, long
    seats: int
    lanes: int
    answered: Counter[int] = field(default_factory=Counter)
    waited: dict[int, float] = field(default_factory=dict)

    async def run(self) -> None:
        bank = SeatsOnly(self.seats)
        tiers = Residency(
            bank,  # type: ignore[arg-type]
            Files().load,
            max_seats=self.seats,
            max_host_bytes=1 << 20,
            patience_s=5.0,
        )
        scheduler = Scheduler(BUDGET)
        for name in NAMES:
            await tiers.loaded(tiers.hold(adapter(name)))
        coming = sorted(enumerate(self.jobs), key=lambda numbered: numbered[1][0])
        running: list[Batch | None] = [None] * self.lanes
        now = 0.0
        while coming or len(scheduler) or any(running):
            while coming and coming[0][1][0] <= now:
                number, (_, frames, name, long) = coming.pop(0)
                worn = worn_of(adapter(name))
                scheduler.add(Job(number, f"r{number}", worn, "es", WINDOW, frames, long), now)
            for lane in range(self.lanes):
                self._finish(running[lane], tiers, now)
                others = sum(batch.long for i, batch in enumerate(running) if batch is not None and i != lane)

                def take(worn: Worn, now: float = now) -> bool:
                    return tiers.take(worn, now)

                batch = scheduler.next_batch(now, take, long=others < max(1, self.lanes - 1))
                running[lane] = batch
                if batch is None:
                    tiers.seat_waiting()
                else:
                    self._check(batch)
                while tiers._seating:
                    await asyncio.gather(*tiers._seating.values())
            now += 1.0
            assert now < 10_000, "it never ends"
        assert bank.taken == tiers.seats <= self.seats
        assert not any(seated.references for seated in tiers._seated.values())

    def _check(self, batch: Batch) -> None:
        assert batch.padded_frames <= BUDGET.max_frames or len(batch.jobs) == 1
        assert len(batch.jobs) <= BUDGET.max_rows
        assert len({job.worn for job in batch.jobs}) <= min(BUDGET.max_adapters, self.seats)

    def _finish(self, batch: Batch | None, tiers: Residency, now: float) -> None:
        if batch is None:
            return
        for job in batch.jobs:
            self.answered[job.id] += 1
            self.waited[job.id] = now - job.times_s["queued"]
        for worn in {job.worn for job in batch.jobs}:
            tiers.release(worn)


arrivals = st.tuples(st.integers(0, 30), st.integers(1, 1_200), st.sampled_from(NAMES), st.booleans())


@settings(max_examples=60)
@given(st.lists(arrivals, max_size=50), st.integers(1, 4), st.integers(1, 3))
def test_every_job_is_answered_once_however_few_the_seats(jobs, seats, lanes):
    traffic = Traffic(jobs, seats, lanes)
    asyncio.run(traffic.run())
    assert traffic.answered == Counter(range(len(jobs)))


@settings(max_examples=20)
@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from([60, 240]))
def test_a_stream_that_never_ends_starves_nobody(seats, lanes, length):
    """Some adapters are asked for at every tick, and one job wears another: it waits no longer in a longer stream."""
    stream = [(tick, 1_000, NAMES[tick % seats], False) for tick in range(length) for _ in range(lanes)]
    lonely = len(stream)
    traffic = Traffic([*stream, (3, 300, "h", False), (3, 300, "a", True)], seats, lanes)
    asyncio.run(traffic.run())
    assert traffic.waited[lonely] <= 15, "patience, the batches that run, its own"
    assert traffic.waited[lonely + 1] <= 15, "long ones wait, but not for ever"


def test_long_recordings_leave_a_lane_to_short_clips():
    long = [(0, 800, "a", True)] * 20
    traffic = Traffic([*long, (5, 100, "b", False)], seats=4, lanes=2)
    asyncio.run(traffic.run())
    assert traffic.waited[20] <= 2


def test_short_clips_go_before_windows_of_long_recordings_that_came_just_before():
    scheduler = Scheduler(replace(BUDGET, max_rows=1))
    worn = worn_of(adapter("a"))
    for number, (when, long) in enumerate([(0.0, True), (1.0, False), (2.5, False)]):
        scheduler.add(Job(number, f"r{number}", worn, "es", WINDOW, 100, long), when)
    order = [scheduler.next_batch(9.0, lambda worn: True) for _ in range(3)]
    assert [batch.jobs[0].id for batch in order if batch] == [1, 0, 2]
