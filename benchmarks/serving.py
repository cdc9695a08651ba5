"""The service over HTTP, closed loop: the same clips in one language, and spread over all of them.

    python -m benchmarks.serving [--models models/NAME] [--rounds 3] [--json OUT]

Both workloads send the same recordings; only the adapter that each is transcribed with differs, so the ratio is what
mixing languages costs. Rounds alternate, so that a machine that slows down slows both. Figures: RTFx (seconds of audio
a second), the median and 95th percentile of the latency, and the ratio mixed to identical with its spread over rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import httpx

from benchmarks.server import ROOT, serving


@dataclass(frozen=True)
class Clip:
    """A recording to send."""

    name: str
    content: bytes
    seconds: float


@dataclass(frozen=True)
class Round:
    """One workload once: ``rtfx`` seconds of audio a second, latencies in seconds."""

    workload: str
    concurrency: int
    rtfx: float
    p50_s: float
    p95_s: float


def main() -> None:
    """Run, print a table, and write JSON where asked."""
    arguments = parse()
    options = ["--models", str(arguments.models)] if arguments.models else []
    with serving("--log-level", "warning", *options) as base:
        rounds = asyncio.run(measure(base, arguments))
    report = {
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "python": platform.python_version()},
        "rounds": [asdict(one) for one in rounds],
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    print(f"{cpu_name()}, {os.cpu_count()} cores, {arguments.rounds} rounds, {arguments.requests} requests each\n")
    print(table(rounds))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, help="model folder; the only one in models/ if left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=48, help="requests a workload and round")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--json", type=Path, help="write every round here")
    return parser.parse_args()


async def measure(base: str, arguments: argparse.Namespace) -> list[Round]:
    """Every concurrency, workload and round, in turn, after one round that does not count."""
    clips = read_clips()
    async with httpx.AsyncClient(base_url=base, timeout=600) as client:
        listed = (await client.get("/adapters")).json()["adapters"]
        names = [adapter["name"] for adapter in listed if adapter["state"] != "failed"]
        workloads = {"identical": names[:1], "mixed": names}
        await load(client, clips, names, arguments.requests, 8)
        rounds = []
        for _ in range(arguments.rounds):
            for concurrency in arguments.concurrency:
                for workload, worn in workloads.items():
                    rtfx, latencies = await load(client, clips, worn, arguments.requests, concurrency)
                    ordered = sorted(latencies)
                    p95 = ordered[int(0.95 * (len(ordered) - 1))]
                    rounds.append(Round(workload, concurrency, rtfx, median(ordered), p95))
        return rounds


async def load(
    client: httpx.AsyncClient, clips: list[Clip], names: list[str], requests: int, concurrency: int
) -> tuple[float, list[float]]:
    """``requests`` requests by ``concurrency`` clients, each sending its next when it has its answer."""
    queue = iter(range(requests))
    latencies: list[float] = []
    audio_s = 0.0

    async def one_client() -> None:
        nonlocal audio_s
        for number in queue:
            clip, name = clips[number % len(clips)], names[number % len(names)]
            began = time.perf_counter()
            answer = await client.post("/transcribe", params={"adapter": name}, content=clip.content)
            answer.raise_for_status()
            latencies.append(time.perf_counter() - began)
            audio_s += clip.seconds

    began = time.perf_counter()
    await asyncio.gather(*(one_client() for _ in range(concurrency)))
    return audio_s / (time.perf_counter() - began), latencies


def read_clips() -> list[Clip]:
    """The recordings in examples/."""
    folder = ROOT / "examples"
    lines = [json.loads(line) for line in (folder / "clips.jsonl").read_text().splitlines()]
    return [Clip(line["file"], (folder / line["file"]).read_bytes(), line["seconds"]) for line in lines]


def table(rounds: list[Round]) -> str:
    """Markdown: medians over the rounds, and the ratio of each mixed round to the identical one before it."""
    lines = [
        "| concurrency | RTFx, one language | RTFx, all mixed | mixed / one (least to most) | p50 / p95 s | mixed, s |",
        "|---|---|---|---|---|---|",
    ]
    for concurrency in sorted({one.concurrency for one in rounds}):
        same = [one for one in rounds if (one.workload, one.concurrency) == ("identical", concurrency)]
        mixed = [one for one in rounds if (one.workload, one.concurrency) == ("mixed", concurrency)]
        ratios = sorted(b.rtfx / a.rtfx for a, b in zip(same, mixed, strict=True))
        cells = [
            str(concurrency),
            f"{median(one.rtfx for one in same):.1f}",
            f"{median(one.rtfx for one in mixed):.1f}",
            f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
            *(f"{median(o.p50_s for o in some):.3f} / {median(o.p95_s for o in some):.3f}" for some in (same, mixed)),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cpu_name() -> str:
    """The processor as Linux names it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


if __name__ == "__main__":
    main()
