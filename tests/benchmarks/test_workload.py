from __future__ import annotations

import asyncio
from collections import Counter

import numpy as np
import pytest

from benchmarks.workload import Cell, closed_loop, languages, percentile, run_cell, timing


def test_who_is_popular():
    assert languages("identical", 64, 10) == [0] * 10
    assert languages("distinct", 4, 10) == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    uniform, zipf = (Counter(languages(popularity, 8, 8_000)) for popularity in ("uniform", "zipf"))
    assert set(uniform) == set(zipf) == set(range(8))
    assert max(uniform.values()) < 1.2 * min(uniform.values())
    assert zipf[0] == pytest.approx(2 * zipf[1], rel=0.2)
    assert zipf[0] == pytest.approx(8 * zipf[7], rel=0.3)


def test_every_system_is_asked_the_same():
    cell = Cell("1-2 s", 8, "zipf", 4, 70)
    first, second = cell.plan(), cell.plan()
    assert len(first) == 70
    assert [language for _, language in first] == [language for _, language in second]
    assert all(a is b for (a, _), (b, _) in zip(first, second, strict=True))
    assert first[64][0] is first[0][0]


@pytest.mark.anyio
@pytest.mark.parametrize("concurrency", [1, 3, 20])
async def test_so_many_clients_wait_at_once_and_every_request_is_sent_once(concurrency):
    waiting = most = 0
    sent = []

    async def send(number: int) -> None:
        nonlocal waiting, most
        sent.append(number)
        waiting += 1
        most = max(most, waiting)
        await asyncio.sleep(0.001 * (number % 3))
        waiting -= 1

    wall_s, latencies = await closed_loop(send, 12, concurrency)
    assert sorted(sent) == list(range(12))
    assert most == min(concurrency, 12)
    assert len(latencies) == 12
    assert max(latencies) <= wall_s


@pytest.mark.anyio
async def test_a_request_that_fails_ends_the_cell_when_those_beside_it_have_ended():
    """What ran on would run beside the next system."""
    ended: list[int] = []
    asked: list[int] = []

    async def answer(samples: np.ndarray, language: int) -> None:
        asked.append(number := len(asked))
        if number == 1:
            raise RuntimeError("as it must")
        await asyncio.sleep(0.05)
        ended.append(number)

    with pytest.raises(RuntimeError, match="as it must"):
        await run_cell(Cell("2 s", 1, "identical", 3, 9), answer)
    assert ended == [0, 2]
    assert asked == [0, 1, 2], "and none after it"


def test_figures_of_a_round():
    found = timing(30.0, 2.0, [0.1 * n for n in range(1, 21)])
    assert found.rtfx == 15.0
    assert found.p50_s == pytest.approx(1.0)
    assert found.p95_s == pytest.approx(1.9)
    assert percentile([3.0], 95) == 3.0
