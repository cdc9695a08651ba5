"""(a) This engine, in process, made as the service makes it; decoded clips are given to ``Engine.transcribe``."""

from __future__ import annotations

import itertools

import numpy as np

from adapters.heap import keep_freed_memory, spare_what_is_loaded
from adapters.shapes import parameter_count
from app.engine.engine import Engine
from app.engine.lanes import Step
from app.service import make_engine
from app.settings import Settings
from benchmarks.backbones import adapter_name
from benchmarks.systems.system import SystemSpec


class TonguesEngine:
    def __init__(self, spec: SystemSpec) -> None:
        self._spec = spec
        self._numbers = itertools.count()
        self._steps = self._rows = 0
        self._padded = self._frames = 0

    async def start(self) -> None:
        keep_freed_memory()  # as `tongues serve` does
        seats = self._spec.seats or self._spec.adapters
        settings = Settings.read(
            models=self._spec.model, device=self._spec.device, device_slots=seats + 1, max_requests=1_024, watch_s=0
        )
        self._engine = Engine(make_engine(settings).config, on_step=self._count)
        await self._engine.start()
        spare_what_is_loaded()
        adapters = self._engine.registry.snapshot.adapters
        self._adapters = [adapters[adapter_name(number)] for number in range(self._spec.adapters)]
        count = parameter_count(self._adapters[0].record.config, self._engine.encoder.size)
        self._bytes = count * self._spec.dtype.itemsize

    async def answer(self, samples: np.ndarray, language: int) -> object:
        with self._engine.admit():
            return await self._engine.transcribe(
                self._adapters[language], [samples], request_id=str(next(self._numbers))
            )

    async def stop(self) -> None:
        await self._engine.drain()

    @property
    def facts(self) -> dict[str, str | int | float]:
        config = self._engine.config
        return {
            "chose": f"{config.lanes} lanes x {config.threads} threads",
            "languages": min(self._spec.adapters, config.max_seats),
            "bytes a language": self._bytes,
            "rows a step": round(self._rows / max(1, self._steps), 2),
            "padding": round(1 - self._frames / max(1, self._padded), 3),
        }

    def _count(self, step: Step) -> None:
        self._steps += 1
        self._rows += step.batch.rows
        self._padded += step.frames
        self._frames += sum(job.frames for job in step.batch.jobs)
