"""From the queue to the device and back: each lane takes a batch, runs it on a thread of its own, hands out answers.

A GPU has one lane with a few batches in flight: when half of the last one has run the next is made, out of what has
come until then, and given to the device before that is idle. Where what waits fills a batch by itself it is made at
once: the event loop, which hands out the answers of the batch before, may not come round before half has run. A CPU has
a lane for each core, of one thread and one batch each: many threads on one small batch wait for each other more than
they help. A batch that leaves the others nothing to do has their cores, too. Of several lanes windows of long
recordings are never in all, so that a short clip finds one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from adapters.bank import Seat
from adapters.errors import BankFull, EngineError, TonguesError
from app.engine.job import Batch, Job, Worn
from app.engine.pulse import Pulse, is_of_device
from app.engine.residency import Residency
from app.engine.runner import Ran, Result
from app.engine.scheduler import Scheduler
from app.engine.threads import LaneThreads

log = logging.getLogger("tongues.engine")
T = TypeVar("T")


@dataclass(frozen=True)
class Step:
    """What one forward did, for logs and metrics. ``seconds``: of the device, for this batch alone. ``frames``: that it
    computed, padding included."""

    batch: Batch
    seconds: float
    lane: int = 0
    frames: int = 1


Forward = Callable[[Batch, Sequence[Seat], Callable[[], object], int], Ran]
"""Runs a batch whose row i wears seat i, and calls back, in its own thread, when half of it is done; the last is of how
many lanes it has the cores."""


class Lanes:
    """``count`` lanes over one queue, each with up to ``in_flight`` batches, each of which has a thread of its own for
    ``forward``. ``probe`` is a forward that can fail by the device alone; :attr:`pulse` tells whether it computes.

    Everything else runs on the event loop that :meth:`start` was called from.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        residency: Residency,
        forward: Forward,
        *,
        count: int,
        in_flight: int = 1,
        probe: Callable[[], object] = lambda: None,
        on_step: Callable[[Step], None],
    ) -> None:
        self.pulse = Pulse()
        self._probe = probe
        self._scheduler, self._residency, self._forward = scheduler, residency, forward
        self._on_step = on_step
        self._count, self._in_flight = count, in_flight
        self._threads = LaneThreads(count, in_flight)
        self._fresh: list[Batch | None] = [None] * count  # of each lane the last batch, until half of it has run
        self._answers: dict[int, asyncio.Future[Result]] = {}
        self._work = asyncio.Event()
        self._going = 0  # batches in flight
        self._long = 0  # those of them with windows of long recordings
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Run from now on."""
        self._tasks = [
            asyncio.create_task(self._run(lane), name=f"lane-{lane}")
            for lane in range(self._count)
            for _ in range(self._in_flight)
        ]

    async def stop(self) -> None:
        """Take no further batch."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._threads.shutdown()

    async def everywhere(self, run: Callable[[], T]) -> list[T]:
        """What ``run`` gives on the thread of each lane, in all of them at the same time."""
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(thread, run) for thread in self._threads))

    def wake(self) -> None:
        """Look at the queue again: there is a new job, or an adapter can be worn that could not."""
        self._work.set()

    def submit(self, job: Job) -> asyncio.Future[Result]:
        """Queue ``job``; what its forward gives comes when its batch has run."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._answers[job.id] = answer
        self._scheduler.add(job, time.monotonic())
        self.wake()
        return answer

    def cancel(self, request_id: str) -> None:
        """Drop what is queued of a request; what runs goes on, and nobody hears of it."""
        dropped = self._scheduler.cancel(request_id)
        for job in dropped:
            self._answers.pop(job.id, None)
        for want in {job.worn for job in dropped} - self._scheduler.wants() if dropped else ():
            self._residency.forget(want)

    def fail(self, worn: Worn, error: Exception) -> None:
        """An adapter cannot get to the device: whoever waits for it is told."""
        if is_of_device(error):
            self.pulse.stop(error)
        for job in self._scheduler.drop(worn):
            self._answer(job, BankFull(f"the adapter {worn.name!r} cannot be put on the device now: {error}"))

    # --- one lane ---

    async def _run(self, lane: int) -> None:
        """One of those that take turns to make the lane's batches."""
        while True:
            await self._work.wait()
            waits = self._fresh[lane] is not None and not self._scheduler.plenty
            batch = None if waits else self._next_batch()
            if batch is None:
                self._work.clear()
                continue
            self._fresh[lane] = batch
            try:
                await self._step(lane, batch, partial(self._half, lane, batch), idle=self._idle())
            except Exception as error:  # of who watches the steps, say: the lane outlives it, and nobody waits in vain
                log.exception("after a forward of %d rows", batch.rows)
                for job in batch.jobs:
                    self._answer(job, EngineError(f"something went wrong beside the forward: {error}"))
            finally:
                self._half(lane, batch)
                self._going -= 1
                self._long -= batch.long
                self._residency.release([job.worn for job in batch.jobs], time.monotonic())
                self.wake()  # a seat may be free now, or the lane that long recordings may take

    def _half(self, lane: int, batch: Batch) -> None:
        """Half of it has run, or it will not: the next one need not wait for it."""
        if self._fresh[lane] is batch:
            self._fresh[lane] = None
            self.wake()

    def _next_batch(self) -> Batch | None:
        now = time.monotonic()
        seatable = partial(self._residency.seatable, now=now)
        batch = self._scheduler.next_batch(now, seatable, long=self._room_for_long())
        if batch is not None:
            self._going += 1
            self._long += batch.long
            for job in batch.jobs:
                self._residency.take(job.worn)
        self._residency.serve(now, held=batch is None)  # not before its references are taken
        return batch

    def _room_for_long(self) -> bool:
        return self._long < max(1, self._count - 1) * self._in_flight

    def _idle(self) -> int:
        """Lanes that have nothing to do beside the batches that were made."""
        waiting = self._scheduler.waiting(long=self._room_for_long())
        return 0 if waiting else self._count - self._going

    async def _step(
        self, lane: int, batch: Batch, on_half: Callable[[], None] = lambda: None, *, idle: int = 0
    ) -> None:
        seats = [self._residency.seat(worn) for job in batch.jobs for worn in job.worn]
        began = time.monotonic()
        for job in batch.jobs:
            job.times_s["started"] = began
        loop = asyncio.get_running_loop()
        tell = partial(loop.call_soon_threadsafe, on_half)
        try:
            with self._threads.of(lane, idle=idle) as (thread, lanes):
                ran = await loop.run_in_executor(thread, self._forward, batch, seats, tell, lanes)
        except Exception as error:
            log.exception("a forward of %d rows failed", len(batch.jobs))
            await self._fail(lane, batch, error)
            return
        self._finish(lane, batch, ran)

    def _finish(self, lane: int, batch: Batch, ran: Ran) -> None:
        now = time.monotonic()
        self.pulse.beat()
        for job, result in zip(batch.jobs, ran.results, strict=True):
            job.times_s["finished"] = now
            if isinstance(result, Exception):
                log.error("a row of a forward of %d failed: %s", batch.rows, result)
            self._answer(job, result)
        longest = max(job.frames for job in batch.jobs)
        frames = self._scheduler.budget.computed(batch.rows, longest)
        if log.isEnabledFor(logging.INFO):
            log.info(
                "batch lane=%d part=%s jobs=%d rows=%d padded_frames=%d languages=%s seconds=%.3f requests=%s",
                lane,
                batch.part,
                len(batch.jobs),
                batch.rows,
                frames,
                ",".join(batch.languages),
                ran.seconds,
                ",".join(job.request_id for job in batch.jobs),
            )
        self._on_step(Step(batch, ran.seconds, lane, frames))

    async def _fail(self, lane: int, batch: Batch, error: Exception) -> None:
        """One row may be to blame: run each alone, and fail only those that fail alone."""
        if len(batch.jobs) > 1:
            for job in batch.jobs:
                await self._step(lane, Batch((job,)))
            return
        known = isinstance(error, TonguesError)
        self._answer(batch.jobs[0], error if known else EngineError(f"the forward failed: {error}"))
        if not known and self.pulse.miss(error):
            await self._look_closer(lane)

    async def _look_closer(self, lane: int) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads[lane], self._probe)
        except Exception as error:
            log.exception("the device computes no more")
            self.pulse.stop(error)
        else:
            self.pulse.beat()

    def _answer(self, job: Job, result: Result | Exception) -> None:
        answer = self._answers.pop(job.id, None)
        if answer is None or answer.done():
            return
        if isinstance(result, Exception):
            answer.set_exception(result)
        else:
            answer.set_result(result)
