"""Lanes whose forwards a test holds up and lets go, or breaks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

from adapters.bank import Bank, Seat
from app.engine.job import Batch, Job, worn_of
from app.engine.lanes import Lanes, Step
from app.engine.residency import Residency
from app.engine.runner import Ran
from app.engine.scheduler import Budget, Scheduler
from tests.app.engine.test_traffic import WINDOW
from tests.app.engine.tiers import SIZE, Files, adapter

BUG = RuntimeError("mat1 and mat2 shapes cannot be multiplied")


class Forward:
    """One that is under way: runs to its half, and to its end, when it is told to."""

    def __init__(self, batch: Batch, on_half: Callable[[], object], lanes: int) -> None:
        self.jobs = [job.id for job in batch.jobs]
        self.lanes = lanes
        self.on_half, self.ended = on_half, threading.Event()

    def end(self) -> None:
        self.ended.set()


class Workshop:
    """Lanes whose forwards are :class:`Forward`, and one adapter."""

    def __init__(
        self,
        *,
        count: int,
        in_flight: int,
        failing: Sequence[int] = (),
        probe: Callable[[], object] = lambda: None,
        budget: Budget | None = None,
    ) -> None:
        self.going: list[Forward] = []
        self.steps: list[Step] = []
        self.failing = failing
        bank = Bank(SIZE, limit=2)
        self.tiers = Residency(
            bank, Files().load, max_seats=2, max_host_bytes=1 << 20, on_seated=lambda: self.lanes.wake()
        )
        self.lanes = Lanes(
            Scheduler(budget or Budget(), count),
            self.tiers,
            self.forward,
            count=count,
            in_flight=in_flight,
            probe=probe,
            on_step=self.steps.append,
        )

    def forward(self, batch: Batch, seats: Sequence[Seat], on_half: Callable[[], object], lanes: int) -> Ran:
        assert len(seats) == batch.rows
        one = Forward(batch, on_half, lanes)
        self.going.append(one)
        assert one.ended.wait(20)
        if len(one.jobs) > 1 and set(one.jobs) & set(self.failing):
            raise RuntimeError("out of memory")
        return Ran([() for _ in batch.jobs], seconds=0.25)

    async def __aenter__(self) -> Workshop:
        worn = self.tiers.hold(adapter("a"))
        await self.tiers.loaded(worn)
        self.lanes.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for one in self.going:
            one.end()
        await self.lanes.stop()

    def submit(self, number: int, *, long: bool = False) -> asyncio.Future:
        worn = (worn_of(adapter("a")),)
        return self.lanes.submit(Job(number, f"r{number}", worn, ("es",), WINDOW, 100, long))

    async def see(self, *batches: list[int]) -> None:
        """These batches were made, and no others are."""
        async with asyncio.timeout(10):
            while len(self.going) < len(batches):
                await asyncio.sleep(0.001)
        await quiet()
        assert [one.jobs for one in self.going] == list(batches)


async def quiet() -> None:
    """Whatever could happen now has happened."""
    for _ in range(20):
        await asyncio.sleep(0.001)


class Broken:
    """A device: what its forwards raise, and what one of nothing but noise does."""

    def __init__(self, error: Exception | None, noise: Exception | None) -> None:
        self.error, self.noise, self.probes = error, noise, 0

    def forward(self, batch: Batch, seats: Sequence[Seat], on_half: Callable[[], object], lanes: int) -> Ran:
        if self.error is not None:
            raise self.error
        return Ran([() for _ in batch.jobs], seconds=0.25)

    def probe(self) -> None:
        self.probes += 1
        if self.noise is not None:
            raise self.noise
