"""Scheduler and residency together, over random traffic with a clock of its own: nothing starves, nothing is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.bank import Seat
from adapters.windows import Window
from app.engine.job import Batch, Job, Worn, worn_of
from app.engine.residency import Residency
from app.engine.scheduler import Budget, Scheduler
from tests.app.engine.tiers import CONFIG, Files, adapter, settled

BUDGET = Budget(max_frames=1_000, max_rows=8, max_adapters=3, long_waits_s=2.0)
WINDOW = Window(0, np.zeros(1, np.float32), 0, 0)
NAMES = "abcdefgh"


class SeatsOnly:
    """In the bank's place: no weights, but it knows who sits where, and notices what must not happen."""

    def __init__(self, limit: int, failing: frozenset[int] = frozenset()) -> None:
        self.limit, self.taken, self.calls, self.failing = limit, 0, 0, failing

    def seat(self, *_: Any) -> Seat:
        self.calls += 1
        if self.calls in self.failing:
            raise RuntimeError("out of memory")
        assert self.taken < self.limit, "more are seated than there are seats"
        self.taken += 1
        return Seat(CONFIG, 0, (("head",), self.taken))

    def prepare(self) -> None:
        """Nothing to make ready."""

    def unseat(self, _: Seat) -> None:
        self.taken -= 1
        assert self.taken >= 0


@dataclass
class Traffic:
    """Jobs to come, and the lanes that run them: one tick of the clock is one batch in each lane.

    Each job is a request of its own: it holds its adapters from its coming until it is answered. Adapters take up to
    two ticks to be seated, meanwhile everything else goes on; the seatings whose numbers are ``failing`` fail.
    """

    jobs: list[tuple[int, int, str, bool]]  # when, frames, adapters, long
    seats: int
    lanes: int
    failing: frozenset[int] = frozenset()
    slow: bool = True
    answered: Counter[int] = field(default_factory=Counter)
    failed: Counter[int] = field(default_factory=Counter)
    waited: dict[int, float] = field(default_factory=dict)

    async def run(self) -> None:
        self.bank = SeatsOnly(self.seats, self.failing)
        self.scheduler = Scheduler(BUDGET)
        self.tiers = Residency(
            self.bank,  # type: ignore[arg-type]
            Files().load,
            max_seats=self.seats,
            max_host_bytes=1 << 20,
            patience_s=5.0,
            on_failure=self._on_failure,
        )
        coming = sorted(enumerate(self.jobs), key=lambda numbered: numbered[1][0])
        running: list[Batch | None] = [None] * self.lanes
        self.now = 0.0
        while coming or len(self.scheduler) or any(running):
            while coming and coming[0][1][0] <= self.now:
                await self._come(*coming.pop(0))
            for lane in range(self.lanes):
                self._finish(running[lane])
                running[lane] = None
                running[lane] = self._next(sum(batch.long for batch in running if batch is not None))
                if not self.slow:
                    await settled(self.tiers)
            if self.now % 2:
                await settled(self.tiers)
            self.now += 1.0
            assert self.now < 10_000, "it never ends"
        await settled(self.tiers)
        assert self.bank.taken == self.tiers.seats <= self.seats
        assert not any(seated.references for seated in self.tiers._seated.values())
        assert not self.tiers._held
        assert not self.tiers._wants

    async def _come(self, number: int, job: tuple[int, int, str, bool]) -> None:
        _, frames, names, long = job
        for name in names:
            await self.tiers.loaded(self.tiers.hold(adapter(name)))
        worn = tuple(worn_of(adapter(name)) for name in names)
        self.scheduler.add(Job(number, f"r{number}", worn, tuple(names), WINDOW, frames, long), self.now)

    def _next(self, long_lanes: int) -> Batch | None:
        seatable = partial(self.tiers.seatable, now=self.now)
        batch = self.scheduler.next_batch(self.now, seatable, long=long_lanes < max(1, self.lanes - 1))
        for job in batch.jobs if batch is not None else ():
            self.tiers.take(job.worn)
        self.tiers.serve(self.now, held=batch is None)
        if batch is None:
            return None
        assert len(batch.worn) <= self.seats
        if len(batch.jobs) > 1:
            assert batch.padded_frames <= BUDGET.max_frames
            assert batch.rows <= BUDGET.max_rows
            assert len(batch.worn) <= BUDGET.max_adapters
        return batch

    def _finish(self, batch: Batch | None) -> None:
        jobs = batch.jobs if batch is not None else ()
        self.tiers.release([job.worn for job in jobs], self.now)
        for job in jobs:
            self.answered[job.id] += 1
            self._go(job)

    def _on_failure(self, worn: Worn, error: Exception) -> None:
        for job in self.scheduler.drop(worn):
            self.failed[job.id] += 1
            self._go(job)

    def _go(self, job: Job) -> None:
        self.waited[job.id] = self.now - job.times_s["queued"]
        for worn in job.worn:
            self.tiers.let_go(worn)


def arrivals(most: int) -> st.SearchStrategy[tuple[int, int, str, bool]]:
    """Jobs in up to ``most`` adapters each."""
    names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=most, unique=True).map("".join)
    return st.tuples(st.integers(0, 30), st.integers(1, 1_200), names, st.booleans())


@settings(max_examples=100)
@given(st.data(), st.integers(1, 4), st.integers(1, 3), st.sets(st.integers(1, 12), max_size=3))
def test_every_job_is_answered_once_however_few_the_seats(data, seats, lanes, failing):
    jobs = data.draw(st.lists(arrivals(seats), max_size=50))
    traffic = Traffic(jobs, seats, lanes, frozenset(failing))
    asyncio.run(traffic.run())
    assert traffic.answered + traffic.failed == Counter(range(len(jobs)))
    assert failing or not traffic.failed


@settings(max_examples=20)
@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from([60, 240]))
def test_a_stream_that_never_ends_starves_nobody(seats, lanes, length):
    """Some adapters are asked for at every tick, and one job wears another: it waits no longer in a longer stream."""
    stream = [(tick, 1_000, NAMES[tick % seats], False) for tick in range(length) for _ in range(lanes)]
    lonely = len(stream)
    traffic = Traffic([*stream, (3, 300, "h", False), (3, 300, "a", True)], seats, lanes, slow=False)
    asyncio.run(traffic.run())
    assert traffic.waited[lonely] <= 15, "patience, the batches that run, its own"
    assert traffic.waited[lonely + 1] <= 15, "long ones wait, but not for ever"


@pytest.mark.parametrize("seats", [2, 3])
def test_candidates_get_their_seats_together_beside_adapters_that_are_always_busy(seats):
    """As many busy adapters as there are seats but one, in batches of both lanes that always overlap."""
    stream = [(tick, 1_000, NAMES[tick % (seats - 1)], False) for tick in range(80) for _ in range(2)]
    traffic = Traffic([*stream, (3, 300, "gh", False)], seats, lanes=2, slow=False)
    asyncio.run(traffic.run())
    assert traffic.waited[len(stream)] <= 15


def test_a_seat_that_is_held_and_not_worn_goes_to_who_waits():
    """b is held by a request whose windows do not come, and a is always worn: c gets the seat of b."""
    stream = [(tick, 1_000, "a", False) for tick in range(60) for _ in range(2)]
    traffic = Traffic([*stream, (0, 300, "b", False), (10, 300, "c", False)], seats=2, lanes=2, slow=False)

    async def run() -> None:
        going = asyncio.create_task(traffic.run())
        await asyncio.sleep(0)
        await traffic.tiers.loaded(traffic.tiers.hold(adapter("b")))
        with pytest.raises(AssertionError, match="_held"):
            await going

    asyncio.run(run())
    assert traffic.waited[len(stream) + 1] <= 15


def test_long_recordings_leave_a_lane_to_short_clips():
    long = [(0, 800, "a", True)] * 20
    traffic = Traffic([*long, (5, 100, "b", False)], seats=4, lanes=2)
    asyncio.run(traffic.run())
    assert traffic.waited[20] <= 2


def test_short_clips_go_before_windows_of_long_recordings_that_came_just_before():
    scheduler = Scheduler(replace(BUDGET, max_rows=1))
    worn = (worn_of(adapter("a")),)
    for number, (when, long) in enumerate([(0.0, True), (1.0, False), (2.5, False)]):
        scheduler.add(Job(number, f"r{number}", worn, ("es",), WINDOW, 100, long), when)
    order = [scheduler.next_batch(9.0, lambda want: True) for _ in range(3)]
    assert [batch.jobs[0].id for batch in order if batch] == [1, 0, 2]
