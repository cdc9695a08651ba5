"""The service over HTTP, the shipped model, as its users meet it: one language against all of them mixed, a known one
against one that is told, a clip beside an hour, and a new version from its upload to its first answer."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx

from adapters.backbone import read_config
from adapters.encoder import size_of
from adapters.store import AdapterStore
from benchmarks.clips import cut, read_recordings, repeated, wav
from benchmarks.server import serving
from benchmarks.workload import Mixing, Timing, closed_loop, percentile, timing

_KEY = "a key of the benchmark alone"
_CONCURRENCIES = (1, 8, 64)
_TELLING = 8
_FEWER = 3
"""How many times fewer requests one client sends alone, who takes the longest."""


@dataclass(frozen=True)
class Beside:
    """One round: p95 of clips of 2 s that are sent one after the other, alone and beside a long recording."""

    idle_p95_s: float
    beside_p95_s: float


@dataclass(frozen=True)
class Telling:
    """One round: the recordings each in its own language, and with `lang=auto`; ``right`` is the share that was told
    rightly."""

    known: Timing
    auto: Timing
    right: float


@dataclass
class Served:
    """What was measured over HTTP. ``published_s``: from sending a version to the first answer by it."""

    languages: int
    mixing: list[Mixing] = field(default_factory=list)
    telling: list[Telling] = field(default_factory=list)
    beside: list[Beside] = field(default_factory=list)
    published_s: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Load:
    """How much is sent: ``requests`` a workload and round, ``long_s`` of recording, ``window_s`` for each p95."""

    rounds: int = 2
    requests: int = 64
    long_s: float = 3_600.0
    window_s: float = 10.0
    publishes: int = 10


def measure(models: Path, device: str, load: Load, keep: Callable[[Served], None]) -> None:
    """Start the service on a copy of the model folder, which versions are published into, and measure; ``keep`` is told
    of what there is after each of three parts."""
    with tempfile.TemporaryDirectory() as folder, open("/dev/null", "w") as log:
        model = shutil.copytree(models, Path(folder) / "model")
        options = ("--models", str(model), "--device", device, "--log-level", "warning")
        with serving(*options, log=log, environment={"TONGUES_ADMIN_KEY": _KEY}) as base:
            asyncio.run(_measure(base, model, load, keep))


async def _measure(base: str, model: Path, load: Load, keep: Callable[[Served], None]) -> None:
    async with httpx.AsyncClient(base_url=base, timeout=600) as client:
        listed = (await client.get("/adapters")).json()["adapters"]
        names = [adapter["name"] for adapter in listed if adapter["state"] != "failed"]
        served = Served(len(names))
        await _loaded(client, names, load.requests, 8)
        for number in range(load.rounds):
            for concurrency in _CONCURRENCIES:
                ways = (names[:1], names) if number % 2 else (names, names[:1])
                requests = load.requests // (_FEWER if concurrency == 1 else 1)
                taken = [await _loaded(client, way, requests, concurrency) for way in ways]
                clients, spoken = min(concurrency, requests), min(len(names), requests)
                timings = taken if number % 2 else reversed(taken)
                served.mixing.append(Mixing(clients, requests, spoken, *timings))
        keep(served)
        if all(adapter["auto"] for adapter in listed):
            for _ in range(load.rounds):
                served.telling.append(await _told(client, load.requests // 2))
        keep(served)
        long = wav(repeated(load.long_s))
        for _ in range(load.rounds):
            idle = await _short_clips(client, names, load.window_s)
            async with _transcribing(client, names[-1], long):
                beside = await _short_clips(client, names, load.window_s)
            served.beside.append(Beside(percentile(idle, 95), percentile(beside, 95)))
        keep(served)
        for number in range(load.publishes):
            served.published_s.append(await _published(client, model, names[number % len(names)], number))
        keep(served)


async def _loaded(client: httpx.AsyncClient, names: list[str], requests: int, concurrency: int) -> Timing:
    recordings = read_recordings()
    sent = [(recordings[n % len(recordings)], names[n % len(names)]) for n in range(requests)]

    async def send(number: int) -> None:
        recording, name = sent[number]
        await _transcribe(client, name, recording.content)

    wall_s, latencies = await closed_loop(send, requests, concurrency)
    return timing(sum(recording.seconds for recording, _ in sent), wall_s, latencies)


async def _told(client: httpx.AsyncClient, requests: int) -> Telling:
    recordings = read_recordings()
    audio_s = sum(recordings[number % len(recordings)].seconds for number in range(requests))
    right = 0

    async def send(number: int, auto: bool) -> None:
        nonlocal right
        recording = recordings[number % len(recordings)]
        spoken = Path(recording.name).stem
        lang = "auto" if auto else spoken
        answer = await client.post("/transcribe", params={"lang": lang}, content=recording.content)
        right += auto and answer.raise_for_status().json()["language"] == spoken

    async def once(auto: bool) -> Timing:
        wall_s, latencies = await closed_loop(partial(send, auto=auto), requests, _TELLING)
        return timing(audio_s, wall_s, latencies)

    known, told = await once(auto=False), await once(auto=True)
    return Telling(known, told, right / requests)


async def _short_clips(client: httpx.AsyncClient, names: list[str], seconds: float) -> list[float]:
    """Clips of 2 s one after the other, for so long: the latency of each."""
    files = [wav(clip) for clip in cut("2 s")]
    latencies: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        number = len(latencies)
        began = time.perf_counter()
        await _transcribe(client, names[number % len(names)], files[number % len(files)])
        latencies.append(time.perf_counter() - began)
    return latencies


@contextlib.asynccontextmanager
async def _transcribing(client: httpx.AsyncClient, name: str, long: bytes) -> AsyncIterator[None]:
    """A long recording on its way until the block ends; begun over where it was finished before."""

    async def over_and_over() -> None:
        while True:
            await _transcribe(client, name, long)

    task = asyncio.create_task(over_and_over())
    await asyncio.sleep(3)  # uploaded, and its first windows under way
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _published(client: httpx.AsyncClient, model: Path, name: str, number: int) -> float:
    """Upload another version of ``name`` and transcribe with it: seconds for both together."""
    record, weights, vocab = _another_version(model, name, number)
    files = {"adapter.json": record, "weights": weights, "vocab": vocab}
    clip = wav(cut("2 s")[number % 64])
    began = time.perf_counter()
    sent = await client.put(f"/adapters/{name}", files=files, headers={"Authorization": f"Bearer {_KEY}"})
    sent.raise_for_status()
    await _transcribe(client, name, clip)
    return time.perf_counter() - began


def _another_version(model: Path, name: str, number: int) -> tuple[bytes, bytes, bytes]:
    """The three files of an adapter that differs a little from the current one."""
    store = AdapterStore(model / "adapters")
    record = store.record(name)
    size = size_of(read_config(model / "backbone"))
    loaded = store.load(record, size=size)
    tensors = {key: tensor * (1 + 1e-3 * (number + 1)) for key, tensor in loaded.tensors.items()}
    with tempfile.TemporaryDirectory() as folder:
        made = AdapterStore(folder).publish(
            name,
            tensors,
            loaded.vocab,
            language=record.language,
            config=record.config,
            size=size,
            fingerprint=record.fingerprint,
        )
        place = Path(folder) / name
        parts = ("adapter.json", made.weights.name, made.vocab.name)
        record_file, weights, vocab = ((place / part).read_bytes() for part in parts)
    return record_file, weights, vocab


async def _transcribe(client: httpx.AsyncClient, name: str, content: bytes) -> None:
    answer = await client.post("/transcribe", params={"adapter": name}, content=content)
    answer.raise_for_status()
