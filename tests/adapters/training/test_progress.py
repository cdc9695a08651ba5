"""Figures of a run: on disk, as curves, and without the time that was not training."""

from __future__ import annotations

import json
import time

import pytest

from adapters.training.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def lines(folder):
    return [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]


def test_speeds_are_of_training_alone(tmp_path, clock):
    progress = Progress(tmp_path / "progress.jsonl", "es", 4, 0, every=2)
    for step in (1, 2, 3, 4):
        clock[0] += 1.0
        progress.update(step, audio_s=10.0, ctc=float(step))
        with progress.paused():
            clock[0] += 5.0
    first, second = lines(tmp_path)
    assert (first["x_real_time"], first["ctc"]) == (10.0, 1.5)
    assert (second["x_real_time"], second["ctc"]) == (10.0, 3.5)


def test_curves_go_on_where_a_run_was_cut_off(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for first in (0, 2):  # the second run begins again after step 2
        progress = Progress(tmp_path / "progress.jsonl", "es", 6, first, every=1)
        for step in range(first + 1, 5 + first // 2):
            progress.update(step, audio_s=1.0, ctc=first + step / 10)
        progress.note(step, dev_cer={"mean": 0.5, "es": 0.25})
    found = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    told = {event.step: round(event.value, 3) for event in found.Scalars("es/ctc")}
    assert told == {1: 0.1, 2: 0.2, 3: 2.3, 4: 2.4, 5: 2.5}
    assert [event.step for event in found.Scalars("es/ctc")] == [1, 2, 3, 4, 5], "no step twice"
    assert found.Scalars("es/dev_cer/es")[-1].value == 0.25
