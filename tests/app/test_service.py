"""The engine that settings describe, on a device that need not be there."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adapters.bank import Bank
from adapters.recogniser import Recogniser
from adapters.windows import Window
from app.engine.config import EngineConfig
from app.engine.job import Job, Worn
from app.engine.scheduler import Scheduler
from app.service import make_engine
from app.settings import Settings
from tests.builders import encoder_of, reference


def config(model_folder: Path, device: str) -> EngineConfig:
    return make_engine(Settings.read(models=model_folder, device=device)).config


def test_a_recording_alone_gives_a_gpu_batches_of_several_rows(model_folder):
    assert config(model_folder, "cuda").windows_in_flight >= 8
    assert config(model_folder, "cpu").windows_in_flight == 2


def test_no_batch_of_a_gpu_computes_more_than_its_budget(model_folder):
    """Widths and row counts that are rounded up count as what they become."""
    budget, encoder = config(model_folder, "cuda").budget, encoder_of(reference("wav2vec2-pre-norm-group"))
    recogniser = Recogniser(encoder, Bank(encoder.size, limit=2), fixed=True)
    for rows, longest in ((1, 300), (33, 810), (49, 100), (128, 99), (65, 400)):
        scheduler, samples = Scheduler(budget), np.zeros(longest * 320 + 80, np.float32)
        window = Window(0, samples, 0, longest)
        for number in range(rows):
            scheduler.add(Job(number, "r", (Worn("es", "1"),), ("es",), window, longest), 0.0)
        batch = scheduler.next_batch(0.0, lambda worn: True)
        assert batch is not None
        audio = recogniser.prepare([job.window for job in batch.jobs])
        computed = audio.samples.shape[0] * encoder.geometry.frames(audio.samples.shape[1])
        assert 0.6 * min(budget.max_frames, rows * longest) < computed <= budget.max_frames
    assert config(model_folder, "cpu").budget.computed(3, 7) == 21
