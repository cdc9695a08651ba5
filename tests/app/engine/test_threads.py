"""Of how many lanes a batch has the cores."""

from __future__ import annotations

import pytest

from adapters.errors import TonguesError
from tests.app.engine.workshop import BUG, Broken, Workshop

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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
