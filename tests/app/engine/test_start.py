"""What happens before the first request: the budget is measured, kernels are warmed up, weights are quantised."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from adapters.quantised import Int8Linear
from app.engine.lanes import Step
from app.engine.pace import Pace
from app.engine.runner import Runner
from app.engine.scheduler import Budget
from tests.app.engine.conftest import started
from tests.builders import clip

pytestmark = pytest.mark.anyio


async def test_it_warms_up_in_every_width_that_a_gpu_has(config, monkeypatch):
    monkeypatch.setattr(Runner, "widths", lambda runner, longest: [8_000, 40_000, longest + 1])
    steps: list[Step] = []
    engine = await started(config, steps)
    frames = [engine.encoder.geometry.frames(samples) for samples in (32_000, 8_000, 40_000, 272_000)]
    assert [step.batch.padded_frames for step in steps] == [frames[0], *(one for one in frames[1:] for _ in range(2))]
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
