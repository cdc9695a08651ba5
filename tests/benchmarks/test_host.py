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
