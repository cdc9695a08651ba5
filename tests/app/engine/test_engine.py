"""The engine as a whole, with a real backbone: concurrent, mixed, long, cancelled, drained."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from adapters.backbone import load_backbone
from adapters.bank import Bank
from adapters.config import AdapterConfig
from adapters.ctc import BestPath, transcript
from adapters.errors import AdapterCorrupt, AudioTooShort, DeadlineExceeded, Draining, QueueFull
from adapters.vocab import Vocab
from adapters.windows import Window, WindowShape, cut
from app.engine.config import EngineConfig
from app.engine.engine import Engine
from app.engine.lanes import Step
from app.engine.scheduler import Budget
from tests.app.engine.conftest import started
from tests.builders import LETTERS, clip, make_model, publish_random
from tests.plain import recognise

pytestmark = pytest.mark.anyio


def alone(engine: Engine, language: str, samples: np.ndarray) -> str:
    """What the clip says in that language, without the engine: one window after the other, each a batch of its own."""
    loaded = engine.registry.load(engine.registry.resolve(language=language))
    bank = Bank(engine.encoder.size, limit=1)
    worn = bank.dress([bank.seat(loaded.record.config, loaded.tensors)])
    windows = list(cut([samples], engine.encoder.geometry, engine.config.window))
    path = BestPath.join(recognise(engine.encoder, [window], worn)[0] for window in windows)
    return transcript(path, loaded.vocab, frame_s=0.02, duration_s=samples.size / 16_000).text


@pytest.fixture
def with_lora(model_folder: Path, tmp_path: Path) -> EngineConfig:
    """The same model, whose French is a LoRA adapter."""
    folder = shutil.copytree(model_folder, tmp_path / "model")
    encoder, vocab = load_backbone(folder / "backbone"), Vocab(("<pad>", "|", *LETTERS["fr"]))
    lora = AdapterConfig("lora", 4, (1, 2, 3), "none", vocab.size)
    publish_random(folder, "fr", lora, vocab, encoder, seed=9)
    return EngineConfig(folder / "backbone", (folder / "adapters",), threads=1)


@pytest.mark.parametrize("model", ["config", "with_lora"])
async def test_mixed_requests_share_batches_and_each_equals_its_solo_answer(model, request):
    config = request.getfixturevalue(model)
    steps: list[Step] = []
    engine = await started(config, steps)
    for language in ("es", "fr", "ru"):  # all three are on the device
        await engine.transcribe(engine.registry.resolve(language=language), [clip(1.0)], request_id=language)
    forward, queued = engine._lanes._forward, threading.Event()

    def once_all_have_come(*given):
        assert queued.wait(30)
        return forward(*given)

    engine._lanes._forward = once_all_have_come
    asked = [(("es", "fr", "ru")[i % 3], clip(2.0 + 0.1 * i, seed=i)) for i in range(12)]
    going = asyncio.gather(
        *(
            engine.transcribe(engine.registry.resolve(language=language), [samples], request_id=f"r{i}")
            for i, (language, samples) in enumerate(asked)
        )
    )
    while len(engine._lanes._answers) < len(asked):  # those of the batch that is held up among them
        await asyncio.sleep(0.001)
    queued.set()
    answers = await going
    for (language, samples), answer in zip(asked, answers, strict=True):
        assert len(answer.text) > 8, "a silent model proves nothing"
        assert answer.text == alone(engine, language, samples)
        assert answer.duration_s == samples.size / 16_000
    assert max(len(set(step.batch.languages)) for step in steps) >= 2, "no batch mixed the languages"
    await engine.drain()


async def test_every_job_knows_its_request_and_the_time_of_every_stage(config):
    steps: list[Step] = []
    engine = await started(config, steps)
    await engine.transcribe(engine.registry.resolve(language="es"), [clip(1.0)], request_id="known")
    job = next(job for step in steps for job in step.batch.jobs if job.request_id == "known")
    times = [job.times_s[stage] for stage in ("queued", "batched", "started", "finished")]
    assert times == sorted(times)
    await engine.drain()


async def test_long_audio_is_cut_into_windows_that_join_again(config):
    steps: list[Step] = []
    engine = await started(replace(config, window=WindowShape(longest_s=4.0, search_s=1.5, context_s=0.5)), steps)
    samples = clip(21.0, seed=5)
    adapter = engine.registry.resolve(language="fr")
    answer = await engine.transcribe(adapter, np.array_split(samples, 17), request_id="long")
    assert answer.text == alone(engine, "fr", samples)
    assert sum(job.request_id == "long" for step in steps for job in step.batch.jobs) >= 6
    assert max(sum(j.request_id == "long" for j in step.batch.jobs) for step in steps) <= config.windows_in_flight
    words = answer.words
    assert all(a.end_s <= b.start_s for a, b in itertools.pairwise(words))
    assert words[-1].end_s > 19
    await engine.drain()


@pytest.mark.parametrize("loudness", [0.0, 1e-4, 5e-4])
async def test_silence_and_faint_noise_say_nothing(config, loudness):
    engine = await started(config)
    noise = np.random.default_rng(0).standard_normal(32_000).astype(np.float32) * loudness
    answer = await engine.transcribe(engine.registry.resolve(language="es"), [noise], request_id="quiet")
    assert (answer.text, answer.words, answer.confidence, answer.duration_s) == ("", (), None, 2.0)
    await engine.drain()


async def test_too_short_for_a_frame(config):
    engine = await started(config)
    adapter = engine.registry.resolve(language="es")
    with pytest.raises(AudioTooShort, match="399 samples"):
        await engine.transcribe(adapter, [np.ones(399, np.float32)], request_id="short")
    await engine.drain()


async def test_an_error_while_decoding_reaches_the_caller_and_frees_everything(config):
    def broken():
        yield clip(1.0)
        raise AudioTooShort("broke off")

    engine = await started(config)
    adapter = engine.registry.resolve(language="es")
    with pytest.raises(AudioTooShort, match="broke off"):
        await engine.transcribe(adapter, broken(), request_id="broken")
    assert (await engine.transcribe(adapter, [clip(1.0)], request_id="next")).text
    assert engine.queued == 0
    await engine.drain()


async def test_more_adapters_than_seats_take_turns(config):
    engine = await started(replace(config, max_seats=1, budget=Budget(max_adapters=1)))
    asked = [(("es", "fr", "ru")[i % 3], clip(1.0, seed=i)) for i in range(9)]
    answers = await asyncio.gather(
        *(
            engine.transcribe(engine.registry.resolve(language=language), [samples], request_id=f"r{i}")
            for i, (language, samples) in enumerate(asked)
        )
    )
    assert [a.text for a in answers] == [alone(engine, language, samples) for language, samples in asked]
    assert engine.residency.seats == 1
    await engine.drain()


async def test_permits_run_out_and_come_back(config):
    engine = await started(replace(config, max_requests=1))
    with engine.admit(), pytest.raises(QueueFull, match="1 requests"), engine.admit():
        pass
    with engine.admit():
        pass
    await engine.drain()


async def test_draining_finishes_what_was_admitted_and_takes_no_more(config):
    engine = await started(config)
    adapter = engine.registry.resolve(language="es")

    async def admitted() -> str:
        with engine.admit():
            await asyncio.sleep(0.05)
            return (await engine.transcribe(adapter, [clip(1.0)], request_id="last")).text

    request = asyncio.create_task(admitted())
    await asyncio.sleep(0.01)
    draining = asyncio.create_task(engine.drain())
    await asyncio.sleep(0.01)
    with pytest.raises(Draining), engine.admit():
        pass
    assert await request
    await draining


async def test_a_deadline_ends_the_request_and_its_jobs(config):
    def slow():
        import time

        for _ in range(20):
            time.sleep(0.05)
            yield clip(0.5)

    engine = await started(replace(config, request_timeout_s=0.2))
    with pytest.raises(DeadlineExceeded, match=r"0\.2 s"):
        await engine.transcribe(engine.registry.resolve(language="es"), slow(), request_id="late")
    assert engine.queued == 0
    await engine.drain()


async def test_the_engine_outlives_who_watches_its_steps(config):
    def broken(step: Step) -> None:
        raise RuntimeError("a metric is broken")

    engine = Engine(config, on_step=broken)
    await engine.start()
    adapter = engine.registry.resolve(language="es")
    for number in range(2):
        async with asyncio.timeout(20):
            assert (await engine.transcribe(adapter, [clip(1.0)], request_id=f"r{number}")).text
    await engine.drain()


async def test_a_cancelled_request_leaves_nothing_behind(config):
    engine = await started(config)
    adapter = engine.registry.resolve(language="es")
    tasks = [asyncio.create_task(engine.transcribe(adapter, [clip(2.0)], request_id=f"r{i}")) for i in range(8)]
    await asyncio.sleep(0.02)
    for task in tasks[:7]:
        task.cancel()
    assert (await tasks[7]).text == alone(engine, "es", clip(2.0))
    await asyncio.gather(*tasks[:7], return_exceptions=True)
    assert engine.queued == 0
    assert not engine._lanes._answers
    await engine.drain()


async def test_an_adapter_with_corrupt_files_fails_by_name_and_the_others_go_on(tmp_path):
    folder = make_model(tmp_path)
    weights = next((folder / "adapters" / "fr").glob("weights-*"))
    weights.write_bytes(weights.read_bytes()[:-8] + b"\0" * 8)
    engine = await started(EngineConfig(folder / "backbone", (folder / "adapters",), threads=1))
    broken = engine.registry.resolve(language="fr")
    with pytest.raises(AdapterCorrupt, match="'fr'"):
        await engine.transcribe(broken, [clip(1.0)], request_id="fr")
    assert engine.where(broken).state == "failed"
    assert (await engine.transcribe(engine.registry.resolve(language="es"), [clip(1.0)], request_id="es")).text
    await engine.drain()


async def test_one_bad_row_does_not_fail_its_neighbours(config, monkeypatch):
    engine = await started(config)
    forward = engine._lanes._forward

    def picky(batch, *given):
        if any(job.request_id == "bad" for job in batch.jobs):
            raise RuntimeError("out of memory")
        return forward(batch, *given)

    monkeypatch.setattr(engine._lanes, "_forward", picky)
    adapter = engine.registry.resolve(language="es")
    requests = ["good", "bad", "fine"]
    answers = await asyncio.gather(
        *(engine.transcribe(adapter, [clip(1.0)], request_id=name) for name in requests), return_exceptions=True
    )
    assert [isinstance(answer, Exception) for answer in answers] == [False, True, False]
    await engine.drain()


def test_windows_of_silence_are_told_from_speech():
    quiet = Window(0, np.random.default_rng(0).standard_normal(16_000).astype(np.float32) * 1e-3, 0, 49)
    assert quiet.silent
    assert not Window(0, clip(1.0, loudness=0.01), 0, 49).silent
