"""Beam searches in threads of their own: held up by a test, left by those who asked, never in the way of others."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from adapters.ctc import Transcript, Word
from adapters.decoding import Decoding
from adapters.errors import BadHotWord, DeadlineExceeded, QueueFull
from app.engine.engine import Engine
from app.engine.lanes import Step
from app.engine.searches import Searches
from tests.app.engine.conftest import started
from tests.builders import add_language_head, clip

pytestmark = pytest.mark.anyio


@dataclass
class Gate:
    """What holds searches up, and what has come of them."""

    open: threading.Event = field(default_factory=threading.Event)
    begun: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)

    def step(self, number: int) -> int:
        self.begun.append(number)
        assert self.open.wait(30)
        self.ended.append(number)
        return number

    async def reached(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.begun) < count:
                await asyncio.sleep(0.001)


@pytest.fixture
def gate() -> Iterator[Gate]:
    found = Gate()
    yield found
    found.open.set()


async def test_who_leaves_ends_with_his_step_and_what_has_not_begun_never_does(gate):
    searches = Searches(1)
    first, second = (asyncio.create_task(searches.run(partial(gate.step, n))) for n in (1, 2))
    await gate.reached(1)
    second.cancel()
    with suppress(asyncio.CancelledError):
        await second
    for _ in range(3):  # a client that hangs up, a deadline, a shutdown
        first.cancel()
        await asyncio.sleep(0.01)
        assert not first.done(), "a core is still at work for it"
    gate.open.set()
    await asyncio.gather(first, return_exceptions=True)
    assert first.cancelled()
    assert await searches.run(lambda: gate.step(3)) == 3
    assert (gate.begun, gate.ended) == ([1, 3], [1, 3])
    await searches.stop()


async def test_what_a_step_raises_is_raised():
    searches = Searches(2)
    with pytest.raises(ZeroDivisionError):
        await searches.run(lambda: 1 // 0)
    await searches.stop()


class Slow(Decoding):
    """A search of a hundred parts, each of which a gate holds up."""

    gate: Gate

    def parts(self, *_: Any, **__: Any) -> Iterator[Sequence[Word]]:
        for number in range(100):
            yield [Word(str(self.gate.step(number)), 0.0, 0.0, 1.0)]

    def __call__(self, *given: Any, duration_s: float, **also: Any) -> Transcript:
        return Transcript.of([word for part in self.parts() for word in part], duration_s)


@pytest.fixture
def slow(gate: Gate) -> Slow:
    decoding = Slow(beam=True)
    object.__setattr__(decoding, "gate", gate)
    return decoding


async def asked(engine: Engine, number: int, decoding: Decoding) -> str:
    with engine.admit():
        adapters = [engine.registry.resolve(language="es")]
        return (await engine.hear(adapters, [clip(1.0)], request_id=f"r{number}", decoding=decoding)).transcript.text


async def test_searches_that_take_for_ever_hold_up_nobody_else(config, slow, gate):
    engine = await started(config)
    searches = [asyncio.create_task(asked(engine, number, slow)) for number in range(40)]
    await gate.reached(1)
    async with asyncio.timeout(20):
        assert await asyncio.to_thread(lambda: "files are read")
        assert await asked(engine, 99, Decoding())
    for search in searches:
        search.cancel()
    gate.open.set()
    await asyncio.gather(*searches, return_exceptions=True)
    await engine.drain()


async def test_a_search_that_nobody_waits_for_ends_with_its_part_and_only_then_gives_its_permit_back(
    config, slow, gate
):
    engine = await started(replace(config, max_requests=1))
    left = asyncio.create_task(asked(engine, 1, slow))
    await gate.reached(1)
    left.cancel()
    await asyncio.sleep(0.01)
    with pytest.raises(QueueFull):
        await asked(engine, 2, Decoding())
    draining = asyncio.create_task(engine.drain())
    gate.open.set()
    async with asyncio.timeout(20):
        await draining
    assert left.cancelled()
    assert gate.ended == [0], "and the other parts are not searched"


async def test_a_deadline_ends_a_search_between_its_parts(config, slow, gate):
    engine = await started(config)
    engine.config = replace(config, request_timeout_s=1.0)
    late = asyncio.create_task(asked(engine, 1, slow))
    await gate.reached(1)
    await asyncio.sleep(1.1)  # the deadline has passed
    gate.open.set()
    with pytest.raises(DeadlineExceeded):
        await late
    assert len(gate.ended) == 1
    await engine.drain()


async def test_a_search_in_parts_gives_all_its_words(config, slow, gate):
    gate.open.set()
    engine = await started(config)
    assert await asked(engine, 1, slow) == " ".join(map(str, range(100)))
    await engine.drain()


SILENCE, SPEECH = np.zeros(32_000, np.float32), clip(2.0)


@pytest.mark.parametrize("audio", [SILENCE, SPEECH], ids=["silence", "speech"])
@pytest.mark.parametrize("languages", ["es", "es fr ru", ""])
async def test_a_hot_word_that_cannot_be_said_is_refused_before_anything_is_heard(config, tmp_path, languages, audio):
    shutil.copytree(config.backbone, tmp_path / "backbone")
    add_language_head(tmp_path, [clip(1.0, seed=seed) for seed in range(3)])
    steps: list[Step] = []
    engine = await started(replace(config, language_head=tmp_path / "languages"), steps)
    del steps[:]
    adapters = [engine.registry.resolve(language=language) for language in languages.split()]
    with pytest.raises(BadHotWord, match="'x1' has '1'"):
        await engine.hear(adapters, [audio], request_id="r", decoding=Decoding(True, ("x1",)))
    assert [step.batch.part for step in steps if step.batch.part != "trunk"] == []
    await engine.drain()


async def test_one_of_several_that_can_say_a_hot_word_is_enough_to_listen(config):
    steps: list[Step] = []
    engine = await started(config, steps)
    del steps[:]
    adapters = [engine.registry.resolve(language=language) for language in ("ru", "es")]
    with suppress(BadHotWord):  # if it is Russian after all
        await engine.hear(adapters, [SPEECH], request_id="r", decoding=Decoding(True, ("niña",)))
    assert steps
    await engine.drain()
