"""The service is killed at random instants, while versions are put over HTTP and written by another process.

After each kill every adapter on disk is whole, and what the next service serves under each name is the version that was
there before or the one that was on its way, and says what that version says alone.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from adapters.config import BackboneSize
from adapters.store import AdapterStore
from tests.app.live import wait_until
from tests.e2e.killable import Service, Writer, unpack, writing
from tests.e2e.world import KEY, LANGUAGES, VERSIONS, World

SIZE = BackboneSize(48, 4, 96)
LONGEST_START_S, LONGEST_RUN_S = 4.0, 2.0


@dataclass
class Kills:
    """What was published and killed so far. ``may_be``: the versions that may be current, by name."""

    world: World
    folder: Path
    may_be: dict[str, set[str]]
    chance: random.Random
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._names = {language: threading.Lock() for language in LANGUAGES}  # one publisher a name at a time
        self._versions = {v.version: v for made in self.world.versions.values() for v in made}

    def round(self, writer: Writer) -> None:
        """Start the service, look at what it serves, publish, kill it; some are killed before they are ready."""
        service, stop = Service(self.folder, self.folder.parent / "log"), threading.Event()
        seeds = self.chance.random(), self.chance.random()
        others = [threading.Thread(target=self._write, args=(writer, stop, random.Random(seeds[0])))]
        try:
            if self.chance.random() < 0.2:
                self._kill_within(LONGEST_START_S, service, others, "killed at start")
                return
            self._await(service)
            self._check_served(service)
            others.append(threading.Thread(target=self._put, args=(service, stop, random.Random(seeds[1]))))
            self._kill_within(LONGEST_RUN_S, service, others, "killed while serving")
        finally:
            stop.set()
            for other in others:
                if other.ident is not None:
                    other.join()
            self._check_disk()

    def serve_at_last(self) -> None:
        """One more start, to be looked at."""
        service = Service(self.folder, self.folder.parent / "log")
        try:
            self._await(service)
            self._check_served(service)
        finally:
            service.kill()

    def _kill_within(self, most_s: float, service: Service, others: list[threading.Thread], what: str) -> None:
        for other in others:
            other.start()
        time.sleep(self.chance.uniform(0.0, most_s))
        service.kill()
        self.counts["kills"] += 1
        self.counts[what] += 1

    @staticmethod
    def _await(service: Service) -> None:
        def is_ready() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"{service.address}/health/ready").status_code == 200
            return False

        wait_until(is_ready)

    # --- publishing ---

    def _put(self, service: Service, stop: threading.Event, chance: random.Random) -> None:
        headers = {"Authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=service.address, headers=headers, timeout=60) as http:
            while not stop.is_set():
                name, number = chance.choice(LANGUAGES), chance.randrange(VERSIONS)
                version = self.world.versions[name][number]
                with self._names[name]:
                    self.may_be[name].add(version.version)
                    try:
                        answer = http.put(f"/adapters/{name}", files=version.files)
                    except httpx.TransportError:  # killed meanwhile: the old one or the new one
                        self.counts["publishes cut off"] += 1
                        return
                    assert answer.status_code == 201, answer.text
                    self.may_be[name] = {version.version}
                    self.counts["put"] += 1

    def _write(self, writer: Writer, stop: threading.Event, chance: random.Random) -> None:
        while not stop.is_set():
            name, number = chance.choice(LANGUAGES), chance.randrange(VERSIONS)
            version = self.world.versions[name][number].version
            with self._names[name]:
                self.may_be[name].add(version)
                assert writer.publish(name, self.folder.parent / "versions" / version) == version
                self.may_be[name] = {version}
                self.counts["written"] += 1
            time.sleep(chance.uniform(0.0, 0.3))

    # --- looking ---

    def _check_disk(self) -> None:
        store = AdapterStore(self.folder / "adapters")
        assert store.names() == LANGUAGES
        for name in LANGUAGES:
            record = store.record(name)
            assert record.version in self.may_be[name]
            store.load(record, size=SIZE)
            self.may_be[name] = {record.version}

    def _check_served(self, service: Service) -> None:
        with httpx.Client(base_url=service.address, timeout=60) as http:
            listed = {one["name"]: one for one in http.get("/adapters").json()["adapters"]}
            assert tuple(sorted(listed)) == LANGUAGES
            assert not [one for one in listed.values() if one["state"] == "failed" or one["reason"]]
            for name in LANGUAGES:
                (version,) = self.may_be[name]
                assert listed[name]["version"] == version
                clip = self.chance.choice(sorted(self._versions[version].clear))
                told = http.post(f"/transcribe?adapter={name}", content=self.world.clips[clip]).json()
                assert (told["version"], told["text"]) == (version, self._versions[version].texts[clip])
                self.counts["answers"] += 1


def kill(world: World, tmp_path: Path, *, kills: int, publishes: int, seed: int) -> Counter[str]:
    """Until there were that many of both."""
    folder = shutil.copytree(world.folder, tmp_path / "model")
    for made in world.versions.values():
        for version in made:
            unpack(version, tmp_path / "versions" / version.version)
    current = {language: {made[-1].version} for language, made in world.versions.items()}
    found = Kills(world, folder, current, random.Random(seed))
    with writing(folder) as writer:
        while found.counts["kills"] < kills or found.counts["put"] + found.counts["written"] < publishes:
            found.round(writer)
    found.serve_at_last()
    assert "Traceback" not in (tmp_path / "log").read_text()
    return found.counts


def test_a_killed_service_comes_back_with_whole_adapters(world: World, tmp_path: Path) -> None:
    counts = kill(world, tmp_path, kills=3, publishes=10, seed=1)
    assert counts["answers"] >= len(LANGUAGES)


@pytest.mark.soak
def test_forty_kills_over_two_hundred_publishes(world: World, tmp_path: Path) -> None:
    counts = kill(world, tmp_path, kills=40, publishes=200, seed=2)
    print(f"\n{dict(counts)}: every adapter whole, each the old version or the new one")
    assert counts["put"] >= 40
    assert counts["written"] >= 40
