from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.backbones import SHIPPED, AdapterSize, make_model
from benchmarks.systems import SystemSpec
from tests.adapters.training.conftest import tones, trained

__all__ = ["tones", "trained"]  # fixtures

ADAPTERS = 3
SIZE = AdapterSize(8, 2)


@pytest.fixture(scope="session")
def bench_model(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small random backbone with three of the benchmark's adapters."""
    return make_model(tmp_path_factory.mktemp("bench") / "model", SHIPPED, model_folder, SIZE, ADAPTERS)


@pytest.fixture
def spec(bench_model: Path) -> SystemSpec:
    """One core of a CPU."""
    return SystemSpec(bench_model, ADAPTERS, "cpu", 1, 1 << 30)


@pytest.fixture(autouse=True)
def _loggers_stay() -> Iterator[None]:
    """Benchmarks quieten transformers in their own processes; here it is the process of other tests too."""
    logger = logging.getLogger("transformers")
    level = logger.level
    yield
    logger.setLevel(level)
