"""What is asked of a system: which clips, in which languages, by how many clients, and how long that took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from adapters.frontend import SAMPLE_RATE
from benchmarks.clips import cut

Popularity = Literal["identical", "uniform", "zipf", "distinct"]


@dataclass(frozen=True)
class Cell:
    """``requests`` requests over ``adapters`` languages by ``concurrency`` clients, as many as there are requests at
    most, each of which sends its next when it has its answer. ``clips`` names a set of :mod:`benchmarks.clips`."""

    clips: str
    adapters: int
    popularity: Popularity
    concurrency: int
    requests: int

    def plan(self) -> list[tuple[np.ndarray, int]]:
        """A clip and the number of its language for each request, the same for every system."""
        clips = cut(self.clips)
        spoken = languages(self.popularity, self.adapters, self.requests)
        return [(clips[number % len(clips)], language) for number, language in enumerate(spoken)]


@dataclass(frozen=True)
class Timing:
    """``rtfx``: seconds of audio a second; latencies from sending to answer."""

    rtfx: float
    p50_s: float
    p95_s: float


@dataclass(frozen=True)
class Mixing:
    """One round: the same clips in one language, and spread over ``languages`` by ``concurrency`` clients. In a process
    of one engine each runs twice, first and last the one, between them the other, so that a machine which slowly
    changes its speed changes both alike; over HTTP one runs after the other. The next round is the other way around."""

    concurrency: int
    requests: int
    languages: int
    identical: Timing
    mixed: Timing


def languages(popularity: Popularity, adapters: int, requests: int) -> list[int]:
    """The language of each request: one alone, all alike, the k-th 1/k as often as the first, or each another than
    those before it."""
    if popularity == "identical":
        return [0] * requests
    if popularity == "distinct":
        return [number % adapters for number in range(requests)]
    weights = np.ones(adapters) if popularity == "uniform" else 1 / np.arange(1, adapters + 1)
    rng = np.random.default_rng(adapters)
    return [int(found) for found in rng.choice(adapters, requests, p=weights / weights.sum())]


async def closed_loop(
    send: Callable[[int], Awaitable[object]], count: int, concurrency: int
) -> tuple[float, list[float]]:
    """Requests 0 to ``count`` by ``concurrency`` clients: seconds in all, and each latency in order of answer. Raises
    the first failure, when all that was sent is answered: nothing of it runs beside what is measured next."""
    queue = iter(range(count))
    latencies: list[float] = []
    failed: list[Exception] = []

    async def client() -> None:
        for number in queue:
            began = time.perf_counter()
            try:
                await send(number)
            except Exception as error:
                failed.append(error)
            if failed:
                return
            latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(min(concurrency, count))))
    if failed:
        raise failed[0]
    return time.perf_counter() - began, latencies


async def run_cell(cell: Cell, answer: Callable[[np.ndarray, int], Awaitable[object]]) -> Timing:
    """``cell`` once, against ``answer(samples, language)``."""
    plan = cell.plan()
    wall_s, latencies = await closed_loop(lambda number: answer(*plan[number]), len(plan), cell.concurrency)
    audio_s = sum(samples.size for samples, _ in plan) / SAMPLE_RATE
    return timing(audio_s, wall_s, latencies)


def timing(audio_s: float, wall_s: float, latencies_s: Sequence[float]) -> Timing:
    """The figures of one round."""
    return Timing(audio_s / wall_s, percentile(latencies_s, 50), percentile(latencies_s, 95))


def together(one: Timing, other: Timing) -> Timing:
    """Two rounds of the same as one: all audio over all time, and the means of the latencies."""
    rtfx = 2 / (1 / one.rtfx + 1 / other.rtfx)
    return Timing(rtfx, (one.p50_s + other.p50_s) / 2, (one.p95_s + other.p95_s) / 2)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that ``percent`` of all are not above."""
    return float(np.percentile(values, percent, method="inverted_cdf"))
