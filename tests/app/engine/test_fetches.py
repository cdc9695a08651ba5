"""Versions on their way: fetched once, held until they are let go of, and told of when they have come."""

from __future__ import annotations

import asyncio

import pytest

from adapters.errors import AdapterCorrupt
from app.engine.fetches import Fetches
from app.engine.job import worn_of
from app.engine.residency import Residency
from tests.app.engine.tiers import AFAR, Clock, Files, adapter, residency

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def on_their_way(files: Files, clock: Clock | None = None) -> tuple[Fetches, Residency]:
    tiers = residency(files, host_bytes=0, clock=clock)
    return Fetches(tiers), tiers


async def test_what_lies_here_is_at_hand():
    files = Files()
    fetches, _ = on_their_way(files)
    assert fetches.at_hand(adapter("es"))
    assert files.reads == []
    assert not fetches.news()


async def test_it_is_fetched_once_and_held_until_it_is_let_go_of():
    files = Files()
    files.gate.clear()
    fetches, tiers = on_their_way(files)
    far = adapter("es", store=AFAR)
    for _ in range(3):
        assert not fetches.at_hand(far)
        await asyncio.sleep(0.01)
    assert not fetches.news()
    files.gate.set()
    await fetches.wait(5)
    assert fetches.news()
    assert not fetches.news(), "told once"
    assert fetches.at_hand(far), "although no bytes are kept of what nobody holds"
    assert files.reads == ["es"]
    fetches.keep([far])
    assert fetches.at_hand(far)
    fetches.keep([])
    assert not tiers.at_hand(worn_of(far))
    assert not tiers._held


async def test_who_has_asked_is_told_what_went_wrong_and_it_is_tried_again_in_time():
    files, clock = Files(broken={"es"}), Clock()
    fetches, tiers = on_their_way(files, clock)
    far = adapter("es", store=AFAR)

    async def ask() -> None:
        while not fetches.at_hand(far):
            await fetches.wait(5)

    for _ in range(2):
        with pytest.raises(AdapterCorrupt, match="missing"):
            await ask()
    assert files.reads == ["es"], "not yet time"
    files.broken.clear()
    clock.now = 1.1
    await ask()
    assert files.reads == ["es", "es"]
    fetches.keep([])
    assert not tiers._held


async def test_what_is_not_wanted_any_more_is_let_go_of_before_it_has_come():
    files = Files()
    files.gate.clear()
    fetches, tiers = on_their_way(files)
    assert not fetches.at_hand(adapter("es", "1", store=AFAR))
    assert not fetches.at_hand(adapter("es", "2", store=AFAR))
    fetches.keep([adapter("es", "2", store=AFAR)])
    assert list(tiers._held) == [worn_of(adapter("es", "2"))]
    files.gate.set()
    await fetches.wait(5)
    fetches.keep([])
    assert not tiers._held
