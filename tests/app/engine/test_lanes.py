"""Batches in flight: with forwards that a test holds up and lets go."""

from __future__ import annotations

import asyncio

import pytest
import torch

from adapters.errors import AdapterFormatError, TonguesError
from app.engine.job import Job, worn_of
from app.engine.pulse import MOST_MISSES
from app.engine.scheduler import Budget
from tests.app.engine.test_traffic import WINDOW
from tests.app.engine.tiers import adapter
from tests.app.engine.workshop import BUG, Broken, Workshop, quiet

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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


async def test_what_fills_a_batch_waits_for_no_half():
    async with Workshop(count=1, in_flight=3, budget=Budget(max_frames=300)) as shop:  # three windows
        shop.submit(1)
        await shop.see([1])
        for number in (2, 3):
            shop.submit(number)
        await shop.see([1])
        for number in range(4, 9):
            shop.submit(number)
        await shop.see([1], [2, 3, 4], [5, 6, 7])
        for number in (9, 10):
            shop.submit(number)
        await shop.see([1], [2, 3, 4], [5, 6, 7])
        shop.going[0].end()
        await shop.see([1], [2, 3, 4], [5, 6, 7], [8, 9, 10])
        shop.going[1].end()
        shop.submit(11)
        await shop.see([1], [2, 3, 4], [5, 6, 7], [8, 9, 10])
        shop.going[3].on_half()
        await shop.see([1], [2, 3, 4], [5, 6, 7], [8, 9, 10], [11])


async def test_long_recordings_wait_for_half_however_many_they_are():
    async with Workshop(count=1, in_flight=3, budget=Budget(max_frames=300)) as shop:
        for number in range(8):
            shop.submit(number, long=True)
        await shop.see([0, 1, 2])
        shop.submit(8)
        shop.going[0].on_half()
        await shop.see([0, 1, 2], [8, 3, 4])


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
