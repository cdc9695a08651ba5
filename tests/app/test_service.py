"""The engine that settings describe, on a device that need not be there."""

from __future__ import annotations

from pathlib import Path

from app.engine.config import EngineConfig
from app.service import make_engine
from app.settings import Settings


def config(model_folder: Path, device: str) -> EngineConfig:
    return make_engine(Settings.read(models=model_folder, device=device)).config


def test_a_recording_alone_gives_a_gpu_batches_of_several_rows(model_folder):
    assert config(model_folder, "cuda").windows_in_flight >= 8
    assert config(model_folder, "cpu").windows_in_flight == 2
