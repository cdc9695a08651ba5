"""What the host does for a request: the engine over a device that takes no time.

    python -m benchmarks.host [--clips '1-2 s'] [--concurrency 64] [--requests 2000] [--rounds 5] [--http]

Every clip goes through models/small once; from then on a forward gives what it gave then as soon as its batch was
prepared. What is left is the engine's own: windows, queue, batches, threads, decoding. A GPU that is faster than that
waits for its host, however fast it is. RTFx is seconds of audio a second, medians over the rounds with the least and
the most; CPU time is of the whole process, its clients with it. With ``--http`` the recordings in examples/ are sent to
the service in a process of its own, which decodes them; CPU time is of the clients alone.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import httpx
import torch

from adapters.bank import Seat
from adapters.frontend import SAMPLE_RATE, pad
from adapters.heap import keep_freed_memory, spare_what_is_loaded
from app.engine.engine import Engine
from app.engine.job import Batch, Job
from app.engine.runner import Paths, Ran, Runner
from app.engine.scheduler import GPU_BUDGET
from app.main import create_app
from app.server import Server
from app.service import make_engine
from app.settings import Settings
from benchmarks.clips import LENGTHS_S, cut, read_recordings
from benchmarks.server import ROOT, serving
from benchmarks.workload import closed_loop


class Remembering(Runner):
    """Has heard every window before, or hears it now and remembers."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._memory: dict[object, Paths] = {}

    def forward(
        self, batch: Batch, seats: Sequence[Seat], on_half: Callable[[], object] = lambda: None, lanes: int = 1
    ) -> Ran:
        keys = [_key(job) for job in batch.jobs]
        if any(key not in self._memory for key in keys):
            ran = super().forward(batch, seats, on_half, lanes)
            self._memory.update(zip(keys, ran.results, strict=True))  # type: ignore[arg-type]
            return ran
        pad([job.window.samples for job in batch.jobs], normalised=False)  # a GPU normalises for itself
        on_half()
        return Ran([self._memory[key] for key in keys], 0.0)


class RememberingEngine(Engine):
    runner_class = Remembering


@dataclass(frozen=True)
class Round:
    """Of all requests of one round, together."""

    audio_s: float
    wall_s: float
    cpu_s: float
    latencies_s: list[float]


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", choices=LENGTHS_S, default="1-2 s")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--http", action="store_true", help="over HTTP, files in examples/ for clips")
    parser.add_argument("--port", type=int, help="only serve there, without end: what --http starts")
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as `tongues serve` does
    if given.port is not None:
        settings = _settings(given.concurrency).model_copy(update={"port": given.port})
        app = create_app(settings, make=_engine, on_ready=spare_what_is_loaded)
        Server(app, app.state.service, settings).run()
        return
    if given.http:
        given.clips = "examples/, over HTTP"
        with serving("--concurrency", str(given.concurrency), command=["benchmarks.host"]) as base:
            rounds = asyncio.run(measure_over_http(base, given.concurrency, given.requests, given.rounds))
    else:
        rounds = asyncio.run(measure(given.clips, given.concurrency, given.requests, given.rounds))
    rates = sorted(given.requests / one.wall_s for one in rounds)
    speeds = [one.audio_s / one.wall_s for one in rounds]
    each_ms = [1e3 * one.cpu_s / given.requests for one in rounds]
    waited_ms = [1e3 * median(one.latencies_s) for one in rounds]
    print("| clips | concurrency | requests a second | RTFx | CPU ms a request | p50, ms |\n|---|---|---|---|---|---|")
    print(
        f"| {given.clips} | {given.concurrency} | {median(rates):.0f} ({rates[0]:.0f} to {rates[-1]:.0f}) |"
        f" {median(speeds):.0f} | {median(each_ms):.2f} | {median(waited_ms):.1f} |"
    )


async def measure(clips: str, concurrency: int, requests: int, rounds: int) -> list[Round]:
    """Closed-loop clients, in the languages of models/small by turns; the first round fills the memory, uncounted."""
    engine = _engine(_settings(concurrency))
    await engine.start()
    adapters, samples = list(engine.registry.snapshot.adapters.values()), cut(clips)
    pairs = len(adapters) * len(samples)

    async def one_round(count: int) -> Round:
        numbers, latencies = iter(range(count)), list[float]()

        async def client() -> None:
            for number in numbers:
                began = time.perf_counter()
                with engine.admit():
                    wanted = adapters[number % len(adapters)]
                    await engine.transcribe(wanted, [samples[number % len(samples)]], request_id=str(next(ids)))
                latencies.append(time.perf_counter() - began)

        audio_s = sum(samples[number % len(samples)].size for number in range(count)) / SAMPLE_RATE
        wall, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(client() for _ in range(concurrency)))
        return Round(audio_s, time.perf_counter() - wall, time.process_time() - cpu, latencies)

    ids = itertools.count()
    await one_round(min(requests, pairs))
    found = [await one_round(requests) for _ in range(rounds)]
    await engine.drain()
    return found


async def measure_over_http(base: str, concurrency: int, requests: int, rounds: int) -> list[Round]:
    """The same over HTTP, from the service at ``base``: each of the recordings in each of the languages."""
    recordings = read_recordings()
    async with httpx.AsyncClient(base_url=base, timeout=600) as client:
        names = [one["name"] for one in (await client.get("/adapters")).json()["adapters"]]

        async def send(number: int) -> None:
            content = recordings[number % len(recordings)].content
            answer = await client.post(f"/transcribe?adapter={names[number % len(names)]}", content=content)
            answer.raise_for_status()

        async def one_round(count: int) -> Round:
            audio_s = sum(recordings[number % len(recordings)].seconds for number in range(count))
            cpu = time.process_time()
            wall_s, latencies = await closed_loop(send, count, concurrency)
            return Round(audio_s, wall_s, time.process_time() - cpu, latencies)

        await one_round(min(requests, len(names) * len(recordings)))
        return [await one_round(requests) for _ in range(rounds)]


def _settings(concurrency: int) -> Settings:
    return Settings.read(models=ROOT / "models/small", device="cpu", lanes=1, max_requests=concurrency, watch_s=0)


def _engine(settings: Settings) -> Engine:
    return RememberingEngine(replace(make_engine(settings).config, budget=GPU_BUDGET, pace=None))


def _key(job: Job) -> object:
    return job.window.samples.size, job.window.samples[:64].tobytes(), job.worn


if __name__ == "__main__":
    main()
