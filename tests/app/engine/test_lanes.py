"""Batches in flight: with forwards that a test holds up and lets go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest
import torch

from adapters.bank import Bank, Seat
from adapters.errors import AdapterFormatError, TonguesError
from app.engine.job import Batch, Job
from app.engine.lanes import Lanes, Step
from app.engine.pulse import MOST_MISSES
from app.engine.residency import Residency, worn_of
from app.engine.runner import Ran
from app.engine.scheduler import Budget, Scheduler
from tests.app.engine.test_traffic import WINDOW
from tests.app.engine.tiers import SIZE, Files, adapter

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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
        self, *, count: int, in_flight: int, failing: Sequence[int] = (), probe: Callable[[], object] = lambda: None
    ) -> None:
        self.going: list[Forward] = []
        self.steps: list[Step] = []
        self.failing = failing
        bank = Bank(SIZE, limit=2)
        self.tiers = Residency(
            bank, Files().load, max_seats=2, max_host_bytes=1 << 20, on_seated=lambda: self.lanes.wake()
        )
        self.lanes = Lanes(
            Scheduler(Budget(), count),
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


async def test_the_next_batch_is_made_when_half_of_one_has_run_and_no_third():
    async with Workshop(count=1, in_flight=2) as shop:
        first = shop.submit(1)
        await shop.see([1])
        waiting = [shop.submit(number) for number in (2, 3)]
        await shop.see([1])
        waiting.append(shop.submit(4))
        shop.going[0].on_half()
        await shop.see([1], [2, 3, 4])
        last = shop.submit(5)
        shop.going[1].on_half()
        await shop.see([1], [2, 3, 4])
        shop.going[0].end()
        await first
        await shop.see([1], [2, 3, 4], [5])
        shop.going[1].end()
        shop.going[2].end()
        await asyncio.gather(*waiting, last)
        assert [step.seconds for step in shop.steps] == [0.25] * 3, "the device's own, not the time in flight"


async def test_the_end_of_a_batch_does_not_open_the_turn_of_the_one_behind_it():
    async with Workshop(count=1, in_flight=2) as shop:
        shop.submit(1)
        await shop.see([1])
        shop.going[0].on_half()
        shop.submit(2)
        await shop.see([1], [2])
        shop.going[0].end()
        await quiet()
        shop.submit(3)
        await shop.see([1], [2])
        shop.going[1].on_half()
        await shop.see([1], [2], [3])


async def test_on_a_cpu_a_lane_has_one_batch():
    async with Workshop(count=1, in_flight=1) as shop:
        shop.submit(1)
        await shop.see([1])
        shop.submit(2)
        shop.going[0].on_half()
        await shop.see([1])
        shop.going[0].end()
        await shop.see([1], [2])


async def test_both_batches_in_flight_may_be_of_long_recordings():
    async with Workshop(count=1, in_flight=2) as shop:
        shop.submit(1, long=True)
        await shop.see([1])
        shop.going[0].on_half()
        shop.submit(2, long=True)
        await shop.see([1], [2])


async def test_a_batch_has_the_cores_of_all_lanes_that_it_leaves_nothing_to_do():
    async with Workshop(count=4, in_flight=1) as shop:
        first = shop.submit(1)
        await shop.see([1])
        shop.submit(2)
        await shop.see([1], [2])
        shop.going[0].end()
        await first
        shop.submit(3)
        await shop.see([1], [2], [3])
        shop.submit(4)
        await shop.see([1], [2], [3], [4])
        assert [one.lanes for one in shop.going] == [4, 1, 3, 1], "one thread alone has more than a lane's"


async def test_lanes_that_find_work_keep_their_cores():
    async with Workshop(count=2, in_flight=1) as shop:
        for number in (1, 2):
            shop.submit(number)
        await shop.see([1], [2])
        assert [one.lanes for one in shop.going] == [1, 1]


async def test_a_long_recording_has_the_cores_of_the_lane_that_is_kept_for_clips_while_none_comes():
    async with Workshop(count=2, in_flight=1) as shop:
        windows = [shop.submit(number, long=True) for number in (1, 2)]
        await shop.see([1])
        shop.submit(3)
        await shop.see([1], [3])
        shop.going[0].end()
        await windows[0]
        await shop.see([1], [3], [2])
        assert [one.lanes for one in shop.going] == [2, 1, 1]


async def test_a_wide_batch_that_fails_is_tried_in_the_lane_s_own_thread_and_leaves_the_wide_one_free():
    async with Workshop(count=2, in_flight=1) as shop:
        shop.lanes._forward = Broken(BUG, None).forward
        with pytest.raises(TonguesError):
            await shop.submit(1)
        shop.lanes._forward = shop.forward
        shop.submit(2)
        await shop.see([2])
        assert shop.going[0].lanes == 2


async def test_seats_are_given_away_once_when_a_batch_has_ended_and_all_its_references_are_back(monkeypatch):
    async with Workshop(count=1, in_flight=1) as shop:
        waiting = [shop.submit(number) for number in (1, 2, 3)]
        await shop.see([1, 2, 3])
        references: list[int] = []
        serve = shop.tiers.serve

        def watched(now: float, *, held: bool = True) -> None:
            references.append(shop.tiers._seated[worn_of(adapter("a"))].references)
            serve(now, held=held)

        monkeypatch.setattr(shop.tiers, "serve", watched)
        shop.going[0].end()
        await asyncio.gather(*waiting)
        await quiet()
        assert references == [0, 0], "at its end, and when the next batch was looked for"


async def test_who_cancels_takes_no_turn_away_from_who_waits_for_the_same():
    async with Workshop(count=1, in_flight=1) as shop:
        shop.submit(1)
        await shop.see([1])
        both = tuple(worn_of(adapter(name)) for name in "ab")
        shop.tiers.hold(adapter("b"))
        for number in (2, 3):
            shop.lanes.submit(Job(number, f"r{number}", both, ("es", "fr"), WINDOW, 100))
        assert not shop.tiers.seatable(both, 5.0)
        assert shop.tiers._wants == {both: 5.0}
        shop.lanes.cancel("r2")
        assert shop.tiers._wants == {both: 5.0}, "it waits since then"
        shop.lanes.cancel("r3")
        assert not shop.tiers._wants, "nobody does any more"


async def test_a_batch_that_fails_before_its_half_keeps_nobody_waiting():
    async with Workshop(count=1, in_flight=2, failing=[2]) as shop:
        first = shop.submit(1)
        await shop.see([1])
        failing = [shop.submit(number) for number in (2, 3)]
        shop.going[0].end()
        await first
        await shop.see([1], [2, 3])
        later = shop.submit(4)
        for count in (2, 3, 4):
            shop.going[-1].end()
            async with asyncio.timeout(10):
                while len(shop.going) <= count:
                    await asyncio.sleep(0.001)
        await shop.see([1], [2, 3], [2], [3], [4])
        shop.going[-1].end()
        await asyncio.gather(*failing, later)


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


BUG = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
ILLEGAL = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
FULL = torch.AcceleratorError("CUDA error: out of memory")


@pytest.mark.parametrize(
    ("error", "noise", "misses", "told"),
    [
        (ILLEGAL, ILLEGAL, 1, "illegal memory access"),
        (ILLEGAL, None, 1, None),
        (BUG, BUG, MOST_MISSES, "shapes"),
        (BUG, None, MOST_MISSES, None),
        (FULL, FULL, MOST_MISSES, "out of memory"),
        (AdapterFormatError("a", "is broken"), BUG, None, None),
    ],
)
async def test_a_device_that_computes_nothing_more_is_told_from_a_bad_job(error, noise, misses, told):
    device = Broken(error, noise)
    async with Workshop(count=1, in_flight=1, probe=device.probe) as shop:
        shop.lanes._forward = device.forward
        for number in range(1, (misses or 2 * MOST_MISSES) + 1):
            assert device.probes == 0
            with pytest.raises(TonguesError):
                await shop.submit(number)
        await quiet()
        assert device.probes == (misses is not None)
        assert (shop.lanes.pulse.failure is None) == (told is None)
        assert (told or "") in (shop.lanes.pulse.failure or "")
        device.error = None
        await shop.submit(99)
        assert shop.lanes.pulse.failure is None, "it computes again"


async def test_failures_between_which_something_succeeds_are_no_sign():
    device = Broken(BUG, BUG)
    async with Workshop(count=1, in_flight=1, probe=device.probe) as shop:
        shop.lanes._forward = device.forward
        for number in range(1, 3 * MOST_MISSES):
            device.error = BUG if number % MOST_MISSES else None
            await asyncio.gather(shop.submit(number), return_exceptions=True)
        assert device.probes == 0


async def test_a_device_that_takes_no_adapter_any_more_is_told_of():
    async with Workshop(count=1, in_flight=1) as shop:
        shop.lanes.fail(worn_of(adapter("a")), RuntimeError("CUDA out of memory"))
        assert shop.lanes.pulse.failure is None
        shop.lanes.fail(worn_of(adapter("a")), ILLEGAL)
        assert "illegal memory access" in str(shop.lanes.pulse.failure)
