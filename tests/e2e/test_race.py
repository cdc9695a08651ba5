"""Requests, publishing and eviction against each other, on a service in a process of its own.

Clients ask for adapters at random while others republish them; there are seats for less than half. Every answer must be
the solo answer of a version that was current while it ran, and memory must stay what it was once the service was warm.
"""

from __future__ import annotations

import itertools
import math
import random
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from benchmarks.server import serving
from tests.e2e.world import KEY, LANGUAGES, VERSIONS, Version, World

SEATS = 3
SAMPLES = 100  # looks at the memory of the service in a race
WARM = 0.2  # of the requests, after which every shape of batch was seen


@dataclass
class Current:
    """Which versions of one adapter were current when: each one's publishing began, was through, and its name."""

    changes: list[tuple[float, float, str]]

    def between(self, began: float, ended: float) -> set[str]:
        """Versions that may have been current at some time between: from when their publishing began until that of the
        next was through."""
        gone = [through for _, through, _ in self.changes[1:]] + [math.inf]
        return {
            version
            for (since, _, version), until in zip(self.changes, gone, strict=True)
            if since <= ended and until >= began
        }


@dataclass
class Race:
    """``clients`` ask ``requests`` times in all, while one publisher puts every version of every adapter in turn."""

    world: World
    requests: int
    current: dict[str, Current]
    lock: threading.Lock = field(default_factory=threading.Lock)
    done: threading.Event = field(default_factory=threading.Event)
    wrong: list[str] = field(default_factory=list)
    seen: set[tuple[str, str]] = field(default_factory=set)
    memory: list[float] = field(default_factory=list)  # MB, at even distances over the requests
    compared: int = 0
    published: int = 0

    def __post_init__(self) -> None:
        self.left = iter(range(self.requests))
        self.by_version = {(lang, v.version): v for lang, made in self.world.versions.items() for v in made}

    def run(self, address: str, clients: int) -> None:
        publisher = threading.Thread(target=self._publish, args=(address,))
        publisher.start()
        try:
            with ThreadPoolExecutor(clients) as pool:
                list(pool.map(lambda number: self._ask(address, number), range(clients)))
        finally:
            self.done.set()
            publisher.join()

    def _ask(self, address: str, number: int) -> None:
        chance = random.Random(number)
        with httpx.Client(base_url=address, timeout=120) as http:
            while (count := self._next()) is not None:
                if count % max(1, self.requests // SAMPLES) == 0:
                    memory = _memory(http)
                    with self.lock:
                        self.memory.append(memory)
                language, clip = chance.choice(LANGUAGES), chance.choice(sorted(self.world.clips))
                began = time.monotonic()
                answer = http.post(f"/transcribe?adapter={language}", content=self.world.clips[clip])
                self._judge(language, clip, answer, began, time.monotonic())

    def _next(self) -> int | None:
        with self.lock:
            return next(self.left, None)

    def _judge(self, language: str, clip: str, answer: httpx.Response, began: float, ended: float) -> None:
        if answer.status_code != 200:
            self.wrong.append(f"{answer.status_code} {answer.text}")
            return
        version, text = answer.json()["version"], answer.json()["text"]
        told = self.by_version[language, version]
        alone, clear = told.texts[clip], clip in told.clear
        with self.lock:
            self.compared += clear
            self.seen.add((language, version))
            if clear and text != alone:
                self.wrong.append(f"{language} {version} {clip}: {text!r}, and alone {alone!r}")
            if version not in self.current[language].between(began, ended):
                self.wrong.append(f"{language} {version} was not current: {self.current[language].changes[-3:]}")

    def _publish(self, address: str) -> None:
        every = [(language, version) for language, made in self.world.versions.items() for version in made]
        random.Random(-1).shuffle(every)
        with httpx.Client(base_url=address, timeout=120, headers={"Authorization": f"Bearer {KEY}"}) as http:
            for language, version in itertools.cycle(every):
                if self.done.is_set():
                    return
                self._put(http, language, version)

    def _put(self, http: httpx.Client, language: str, version: Version) -> None:
        changes, began = self.current[language].changes, time.monotonic()
        with self.lock:
            changes.append((began, math.inf, version.version))
        answer = http.put(f"/adapters/{language}", files=version.files)
        with self.lock:
            changes[-1] = (began, time.monotonic(), version.version)
            self.published += 1
        if answer.status_code != 201:
            self.wrong.append(f"publishing: {answer.status_code} {answer.text}")


def race(world: World, tmp_path: Path, *, clients: int, requests: int) -> Race:
    """Run it, with nothing wrong."""
    assert world.told_apart >= 0.9, "it proves nothing where versions say the same"
    assert len(LANGUAGES) / 2 >= SEATS
    folder = shutil.copytree(world.folder, tmp_path / "model")
    current = {lang: Current([(-math.inf, -math.inf, made[-1].version)]) for lang, made in world.versions.items()}
    found = Race(world, requests, current)
    environment = {
        "TONGUES_ADMIN_KEY": KEY,
        "TONGUES_DEVICE_SLOTS": str(SEATS),
        "TONGUES_HOST_BYTES": "100000",
        "TONGUES_LOG_LEVEL": "warning",
    }
    log = (tmp_path / "log").open("w")
    with log, serving("--models", str(folder), log=log, environment=environment) as address:
        found.run(address, clients)
    assert found.wrong == []
    assert found.compared >= 0.9 * requests
    assert "Traceback" not in (tmp_path / "log").read_text()
    return found


def _memory(http: httpx.Client) -> float:
    found = re.search(r"^process_resident_memory_bytes (\S+)$", http.get("/metrics").text, re.MULTILINE)
    assert found is not None
    return float(found[1]) / 1e6


def test_requests_publishing_and_eviction_at_once(world: World, tmp_path: Path) -> None:
    found = race(world, tmp_path, clients=8, requests=200)
    assert found.published > 5
    assert len(found.seen) > len(LANGUAGES)
    half = len(found.memory) // 2
    assert max(found.memory[half:]) < 1.3 * max(found.memory[:half])


@pytest.mark.soak
def test_five_thousand_requests_of_thirty_two_clients(world: World, tmp_path: Path) -> None:
    found = race(world, tmp_path, clients=32, requests=5_000)
    warm = max(found.memory[: int(WARM * len(found.memory))])
    print(
        f"\n{found.requests} requests, {found.compared} compared, none wrong; {found.published} publishes; "
        f"{len(found.seen)} of {len(LANGUAGES) * VERSIONS} versions heard; versions differ on "
        f"{100 * world.told_apart:.0f} % of the clips or more\nmemory in MB, warm {warm:.0f}, then "
        f"{[round(one) for one in found.memory[:: SAMPLES // 10]]}, most {max(found.memory):.0f}"
    )
    assert len(found.seen) >= 0.9 * len(LANGUAGES) * VERSIONS
    assert max(found.memory) <= 1.05 * warm
