"""What the host does for a request: the engine over a device that takes no time, or as long as is told.

    python -m benchmarks.host [--clips '1-2 s'] [--concurrency 64] [--requests 2000] [--rounds 5] [--http]
                              [--step-ms 2 --frame-us 2.3 [--frames 8000]]

Every clip goes through models/small once; from then on a forward gives what it gave then as soon as its batch was
prepared. What is left is the engine's own: windows, queue, batches, threads, decoding. A GPU that is faster than that
waits for its host, however fast it is. RTFx is seconds of audio a second, medians over the rounds with the least and
the most; CPU time is of the whole process, its clients with it. With ``--http`` the recordings in examples/ are sent to
the service in a process of its own, which decodes them; CPU time is of the clients alone.

With ``--step-ms`` and ``--frame-us`` the device takes that for a batch and for each frame that it computes, one batch
after the other, as a GPU does: how busy the host keeps it, and with how much padding, is told as well. ``--frames`` is
the budget of a batch, which the service measures at its start.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import httpx
import torch

from adapters.bank import Seat
from adapters.frontend import SAMPLE_RATE, pad
from adapters.heap import keep_freed_memory, spare_what_is_loaded
from adapters.recogniser import computed_frames
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

_LAUNCHES = 16
"""Operations that a batch on a GPU is given as, each of which lets go of Python's lock and waits for it again."""


class Device:
    """Takes ``step_s`` for a batch and ``frame_s`` for each frame that it computes, one batch after the other; nothing
    at all where both are 0. ``frames``: the budget of a batch."""

    def __init__(self, step_s: float = 0.0, frame_s: float = 0.0, frames: int = GPU_BUDGET.max_frames) -> None:
        self.step_s, self.frame_s, self.frames = step_s, frame_s, frames
        self._free_at = 0.0
        self._word = torch.zeros(1)
        self.busy_s = 0.0
        self.steps = self.rows = self.computed = self.useful = 0

    @property
    def takes_time(self) -> bool:
        return self.step_s > 0 or self.frame_s > 0

    @property
    def overhead(self) -> int | None:
        """In frames, as the service would measure it."""
        return round(self.step_s / self.frame_s) if self.frame_s else GPU_BUDGET.overhead

    def launch(self, batch: Batch) -> tuple[float, float]:
        """When half of it will have run, and all. From one thread."""
        frames = computed_frames(batch.rows, max(job.frames for job in batch.jobs))
        for _ in range(_LAUNCHES):
            self._word.add_(1)
        taken = self.step_s + self.frame_s * frames
        begin = max(time.perf_counter(), self._free_at)
        self._free_at = begin + taken
        self.busy_s += taken
        self.steps += 1
        self.rows += batch.rows
        self.computed += frames
        self.useful += sum(job.frames * job.rows for job in batch.jobs)
        return begin + taken / 2, begin + taken

    def forget(self) -> None:
        """Count from now on."""
        self.busy_s = 0.0
        self.steps = self.rows = self.computed = self.useful = 0

    @property
    def told(self) -> str:
        """What it was kept busy with."""
        each, padding = self.rows / max(1, self.steps), 1 - self.useful / max(1, self.computed)
        return f"{self.steps} steps of {each:.1f} rows, {100 * padding:.0f} % of the frames padding"


class Remembering(Runner):
    """Has heard every window before, or hears it now and remembers, on a ``device`` that answers when it is time."""

    device: Device

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._memory: dict[object, Paths] = {}
        if self.device.takes_time:
            self._device_thread = ThreadPoolExecutor(1, thread_name_prefix="device")

    def shapes(self, frames: int, rows: int, longest: int) -> list[tuple[int, int]]:
        return []  # none to get ready for

    def forward(
        self, batch: Batch, seats: Sequence[Seat], on_half: Callable[[], object] = lambda: None, lanes: int = 1
    ) -> Ran:
        keys = [_key(job) for job in batch.jobs]
        if any(key not in self._memory for key in keys):
            ran = super().forward(batch, seats, on_half, lanes)
            self._memory.update(zip(keys, ran.results, strict=True))  # type: ignore[arg-type]
            return ran
        pad([job.window.samples for job in batch.jobs], normalised=False)  # a GPU normalises for itself
        if not self.device.takes_time:
            on_half()
            return Ran([self._memory[key] for key in keys], 0.0)
        half, done = self._give(self.device.launch, batch)
        _sleep_until(half)
        on_half()
        _sleep_until(done)
        return Ran([self._memory[key] for key in keys], 0.0)


def _sleep_until(then: float) -> None:
    time.sleep(max(0.0, then - time.perf_counter()))


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
    parser.add_argument("--step-ms", type=float, default=0.0, help="that the device takes for a batch")
    parser.add_argument("--frame-us", type=float, default=0.0, help="and for each frame that it computes")
    parser.add_argument("--frames", type=int, default=GPU_BUDGET.max_frames, help="of a batch")
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
        device = Device(given.step_ms / 1e3, given.frame_us / 1e6, given.frames)
        rounds = asyncio.run(measure(given.clips, given.concurrency, given.requests, given.rounds, device))
    rates = sorted(given.requests / one.wall_s for one in rounds)
    speeds = [one.audio_s / one.wall_s for one in rounds]
    each_ms = [1e3 * one.cpu_s / given.requests for one in rounds]
    waited_ms = [1e3 * median(one.latencies_s) for one in rounds]
    print("| clips | concurrency | requests a second | RTFx | CPU ms a request | p50, ms |\n|---|---|---|---|---|---|")
    print(
        f"| {given.clips} | {given.concurrency} | {median(rates):.0f} ({rates[0]:.0f} to {rates[-1]:.0f}) |"
        f" {median(speeds):.0f} | {median(each_ms):.2f} | {median(waited_ms):.1f} |"
    )
    if not given.http and device.takes_time:
        busy = device.busy_s / sum(one.wall_s for one in rounds)
        print(f"\nThe device was busy {100 * busy:.0f} % of the time: {device.told}.")


async def measure(
    clips: str, concurrency: int, requests: int, rounds: int, device: Device | None = None
) -> list[Round]:
    """Closed-loop clients, in the languages of models/small by turns; the first round fills the memory, uncounted."""
    device = device or Device()
    engine = _engine(_settings(concurrency), device)
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
    device.forget()
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


def _engine(settings: Settings, device: Device | None = None) -> Engine:
    timed = device or Device()
    budget = replace(GPU_BUDGET, max_frames=timed.frames, computed=computed_frames, overhead=timed.overhead)

    class OfDevice(Remembering):
        device = timed

    class RememberingEngine(Engine):
        runner_class = OfDevice

    return RememberingEngine(replace(make_engine(settings).config, budget=budget, pace=None, windows_in_flight=8))


def _key(job: Job) -> object:
    return job.window.samples.size, job.window.samples[:64].tobytes(), job.worn


if __name__ == "__main__":
    main()
