"""The host alone: every window goes through the model once, and is answered all the same."""

from __future__ import annotations

import pytest

from adapters.recogniser import Recogniser
from benchmarks import host


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_window_is_heard_once_in_each_language(monkeypatch):
    ran: list[int] = []
    whole = Recogniser.whole

    def counted(self, audio, windows, *rest):
        ran.append(len(windows))
        return whole(self, audio, windows, *rest)

    monkeypatch.setattr(Recogniser, "whole", counted)
    (one,) = await host.measure("1-2 s", concurrency=2, requests=6, rounds=1)
    assert sum(ran) == 6 + 1, "and one to warm up"
    assert len(one.latencies_s) == 6
    assert 6 <= one.audio_s <= 12


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_device_takes_its_time_for_one_batch_after_the_other():
    device = host.Device(step_s=0.05, frame_s=1e-5, frames=4_000)
    (one,) = await host.measure("1-2 s", concurrency=4, requests=6, rounds=1, device=device)
    assert device.steps >= 2
    assert device.rows == 6
    assert device.computed > device.useful > 0
    assert device.busy_s == pytest.approx(0.05 * device.steps + 1e-5 * device.computed)
    assert one.wall_s >= device.busy_s, "no batch runs beside another"
    assert device.overhead == 5_000
    device.forget()
    assert device.told.startswith("0 steps")
