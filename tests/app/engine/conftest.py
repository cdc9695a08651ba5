"""An engine over a small real backbone."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.engine.config import EngineConfig
from app.engine.engine import Engine
from app.engine.lanes import Step


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def config(model_folder: Path) -> EngineConfig:
    return EngineConfig(model_folder / "backbone", (model_folder / "adapters",), threads=1)


async def started(config: EngineConfig, steps: list[Step] | None = None) -> Engine:
    engine = Engine(config, on_step=None if steps is None else steps.append)
    await engine.start()
    return engine
