"""What happens before the first request: the budget is measured, kernels are warmed up, weights are quantised."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch

from adapters.bank import Seat
from adapters.config import AdapterConfig
from adapters.quantised import Int8Linear
from app.engine.pace import Pace
from app.engine.runner import Runner
from app.engine.scheduler import Budget
from tests.app.engine.conftest import started
from tests.builders import clip

pytestmark = pytest.mark.anyio


async def test_it_rehearses_every_shape_that_a_gpu_has_in_adapters_of_every_kind(config, monkeypatch):
    rehearsed: list[tuple[list[tuple[int, int]], list[AdapterConfig]]] = []

    def rehearse(runner: Runner, shapes: list[tuple[int, int]], seats: list[Seat], within_s: float) -> int:
        rehearsed.append((shapes, [seat.config for seat in seats]))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Runner, "shapes", lambda runner, *given: [(1, 16_000), (given[1], given[2])])
    monkeypatch.setattr(Runner, "rehearse", rehearse)
    engine = await started(config)
    assert engine.ready, "what does not fit comes as it may"
    ((shapes, configs),) = rehearsed
    assert shapes == [(1, 16_000), (config.budget.max_rows, 18 * 16_000)]
    every = [adapter.record.config for adapter in engine.registry.snapshot.adapters.values()]
    assert {(one.method, one.size, one.layers) for one in configs} == {(c.method, c.size, c.layers) for c in every}
    assert not any(one.references for one in engine.residency._seated.values())
    await engine.drain()


async def test_the_budget_is_measured_on_every_lane_at_start(config):
    engine = await started(replace(config, lanes=2, pace=Pace(step_s=1e-9, least=321, most=1_600)))
    assert engine._scheduler.budget.max_frames == 321, "no machine is that fast"
    assert await engine._lanes.everywhere(lambda: threading.current_thread().name) != ["lane-0_0"] * 2
    await engine.drain()


async def test_without_a_pace_the_budget_is_the_one_that_was_given(config):
    engine = await started(replace(config, budget=Budget(max_frames=777)))
    assert engine._scheduler.budget.max_frames == 777
    await engine.drain()


async def test_a_quantised_backbone_serves(config):
    engine = await started(replace(config, quantise="int8"))
    answer = await engine.transcribe(engine.registry.resolve(language="es"), [clip(2.0)], request_id="int8")
    assert answer.text
    assert any(isinstance(module, Int8Linear) for module in engine.encoder.modules())
    await engine.drain()
