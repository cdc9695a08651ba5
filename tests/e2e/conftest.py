"""The service as users run it: `tongues serve` in a process of its own, with the model in models/."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.server import serving
from tests.e2e.world import World, make_world


@pytest.fixture(scope="session")
def service_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the service logs."""
    return tmp_path_factory.mktemp("service") / "log"


@pytest.fixture(scope="session")
def address(service_log: Path) -> Iterator[str]:
    """Where the service listens, warmed up. Its batches hold several clips even where other tests make the machine slow
    at its start, when it would measure how much they may hold."""
    with service_log.open("w") as out, serving(log=out, environment={"TONGUES_MAX_BATCH_FRAMES": "1000"}) as found:
        yield found
    assert "Traceback" not in service_log.read_text()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Not to be changed by a test."""
    return make_world(tmp_path_factory.mktemp("world"))
