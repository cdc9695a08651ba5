"""What a lane runs on a CPU: one call, timed."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from adapters.bank import Bank
from adapters.config import AdapterConfig, top_layers
from adapters.errors import AdapterFormatError
from adapters.frontend import PaddedAudio
from adapters.graphs import Graphs
from adapters.recogniser import Launched, Recogniser
from adapters.windows import cut
from app.engine.job import Batch, Job, Worn
from app.engine.runner import Runner
from tests.adapters.test_graphs import Recorder
from tests.builders import clip, encoder_of, perturbed_adapter, reference

CONFIG = AdapterConfig("bottleneck", 8, top_layers(4, 2), "adapted", 24)


@pytest.fixture
def runner_and_bank() -> tuple[Runner, Bank]:
    encoder = encoder_of(reference("wav2vec2-pre-norm-group"))
    bank = Bank(encoder.size, limit=2)
    return Runner(encoder, bank), bank


def batch(runner: Runner) -> Batch:
    geometry = runner.recogniser._encoder.geometry
    windows = [next(cut([clip(0.5, seed=seed)], geometry)) for seed in range(2)]
    worn = (Worn("es", "1"),)
    return Batch(tuple(Job(i, f"r{i}", worn, ("es",), window, 24) for i, window in enumerate(windows)))


def tensors(runner: Runner) -> dict[str, torch.Tensor]:
    return perturbed_adapter(CONFIG, runner.recogniser._encoder, 0).tensors()


def test_a_forward_tells_its_half_and_the_seconds_of_the_device(runner_and_bank):
    runner, bank = runner_and_bank
    seat = bank.seat(CONFIG, tensors(runner))
    told: list[str] = []
    began = time.perf_counter()
    ran = runner.forward(batch(runner), [seat, seat], lambda: told.append("half"))
    assert 0 < ran.seconds < time.perf_counter() - began
    assert told == ["half"]
    assert [len(paths) for paths in ran.results] == [1, 1]
    assert runner.in_flight == 1


def test_a_forward_has_the_threads_of_so_many_lanes_and_gives_them_back(runner_and_bank):
    runner, bank = runner_and_bank
    runner._threads, runner._cores = torch.get_num_threads(), 3 * torch.get_num_threads()
    seen: list[int] = []

    class Watched(Recogniser):
        def whole(self, *given):
            seen.append(torch.get_num_threads())
            return super().whole(*given)

    runner.recogniser = Watched(runner.recogniser._encoder, bank)
    seats = [bank.seat(CONFIG, tensors(runner))] * 2
    narrow, wide, again, _ = (runner.forward(batch(runner), seats, lanes=lanes) for lanes in (1, 3, 1, 8))
    most = 3 * runner._threads
    assert seen == [runner._threads, most, runner._threads, most], "never more than there are cores"
    assert torch.get_num_threads() == runner._threads
    for (one,), (other,), (last,) in zip(narrow.results, wide.results, again.results, strict=True):
        np.testing.assert_array_equal(one.ids, other.ids)
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-4)
        np.testing.assert_array_equal(one.probabilities, last.probabilities)


def test_a_trial_times_what_serving_runs(runner_and_bank):
    """Where graphs are, the replay of one, after a call that warms up and one that records."""
    runner, bank = runner_and_bank
    recorder, calls = Recorder(), []

    class Bare(Recogniser):
        def bare(self, audio: PaddedAudio) -> Launched[None]:
            calls.append((recorder.recorded, recorder.replayed))
            return super().bare(audio)

    encoder = runner.recogniser._encoder
    runner.recogniser = Bare(encoder, bank)
    assert 0 < runner.trial_s(2) < 60
    assert calls == [(0, 0)] * 2
    calls.clear()
    runner.recogniser = Bare(encoder, bank, fixed=True, run=Graphs(recorder))
    assert 0 < runner.trial_s(2) < 60
    assert calls == [(0, 0), (0, 0), (1, 1)]
    assert (recorder.recorded, recorder.replayed) == (1, 2)


def test_an_adapter_that_gives_no_numbers_fails_its_own_job_alone(runner_and_bank):
    runner, bank = runner_and_bank
    good, weights = tensors(runner), tensors(runner)
    weights["head.weight"] = torch.full_like(weights["head.weight"], np.nan)
    seats = [bank.seat(CONFIG, weights), bank.seat(CONFIG, good)]
    first, second = batch(runner).jobs
    mixed = Batch((first, replace(second, worn=(Worn("fr", "1"),))))
    bad, fine = runner.forward(mixed, seats).results
    assert isinstance(bad, AdapterFormatError)
    assert re.search(r"'es'.*no numbers", str(bad))
    alone = runner.forward(Batch(mixed.jobs[1:]), seats[1:]).results[0]
    np.testing.assert_array_equal(fine[0].ids, alone[0].ids)


def test_after_a_rehearsal_nothing_is_recorded_any_more(runner_and_bank):
    """As on a GPU, with a recorder that computes on the CPU."""
    runner, bank = runner_and_bank
    encoder, recorder = runner.recogniser._encoder, Recorder()
    runner.recogniser = Recogniser(encoder, bank, fixed=True, run=Graphs(recorder))
    assert runner.shapes(200, 4, 20_000) == [], "a CPU has no few shapes"
    with ThreadPoolExecutor(1) as runner._device_thread:
        shapes = runner.shapes(200, 4, 20_000)
        assert {rows for rows, _ in shapes} == {1, 2, 4}
        assert max(width for _, width in shapes) >= 20_000
        seats = [bank.seat(CONFIG, tensors(runner))]
        assert runner.rehearse(shapes, seats, within_s=0.0) < len(shapes)
        assert runner.rehearse(shapes, seats, within_s=600.0) == len(shapes)
        recorded, replayed = recorder.recorded, recorder.replayed
        runner.forward(batch(runner), seats * 2)
    assert (recorder.recorded, recorder.replayed) == (recorded, replayed + 2), "a trunk's and a top's"
