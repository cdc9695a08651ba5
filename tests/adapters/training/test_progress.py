"""Figures of a run: on disk, as curves, and without the time that was not training."""

from __future__ import annotations

import json
import time

import pytest

from adapters.training.progress import Progress, step_seconds


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
    assert step_seconds(tmp_path / "progress.jsonl") == 4.0


def test_steps_that_a_kill_made_it_take_again_count_once(tmp_path, clock):
    for first, each in ((0, 1.0), (2, 3.0)):  # the second sitting begins after step 2, of which there was a checkpoint
        progress = Progress(tmp_path / "progress.jsonl", "es", 6, first, every=2)
        for step in range(first + 1, 5 + first):
            clock[0] += each
            progress.update(step, audio_s=1.0)
    assert step_seconds(tmp_path / "progress.jsonl") == 2 * 1.0 + 4 * 3.0


def test_a_line_that_a_full_disk_cut_off_spoils_no_other(tmp_path, clock):
    progress = Progress(tmp_path / "progress.jsonl", "es", 4, 0, every=2)
    for step in (1, 2):
        clock[0] += 1.0
        progress.update(step, audio_s=10.0)
    with (tmp_path / "progress.jsonl").open("a") as file:
        file.write('{"stage": "es", "step"')
    again = Progress(tmp_path / "progress.jsonl", "es", 4, 2, every=2)
    for step in (3, 4):
        clock[0] += 1.0
        again.update(step, audio_s=10.0)
    assert step_seconds(tmp_path / "progress.jsonl") == 4.0


def test_rows_that_were_too_short_are_told(tmp_path, clock):
    progress = Progress(tmp_path / "progress.jsonl", "es", 4, 0, every=2)
    for step, rows in enumerate((0, 0, 2, 1), start=1):
        clock[0] += 1.0
        progress.too_short(rows)
        progress.update(step, audio_s=1.0)
    first, second = lines(tmp_path)
    assert "too_short" not in first
    assert second["too_short"] == 3


def test_curves_go_on_where_a_run_was_cut_off(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for first in (0, 2):  # the second run begins again after step 2
        progress = Progress(tmp_path / "progress.jsonl", "es", 6, first, every=1)
        began = int(time.time())
        for step in range(first + 1, 5 + first // 2):
            progress.update(step, audio_s=1.0, ctc=first + step / 10)
        progress.note(step, dev_cer={"mean": 0.5, "es": 0.25})
        while int(time.time()) == began:  # files of curves are read in the order of the seconds in their names
            time.sleep(0.02)
    found = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    told = {event.step: round(event.value, 3) for event in found.Scalars("es/ctc")}
    assert told == {1: 0.1, 2: 0.2, 3: 2.3, 4: 2.4, 5: 2.5}
    assert [event.step for event in found.Scalars("es/ctc")] == [1, 2, 3, 4, 5], "no step twice"
    assert found.Scalars("es/dev_cer/es")[-1].value == 0.25
