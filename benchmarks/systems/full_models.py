"""(c) One full model a language, all resident: what serving fine-tuned checkpoints comes to."""

from __future__ import annotations

import copy
import gc
from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.memory import resident_bytes
from benchmarks.systems.batches import Batches, Layout, Row
from benchmarks.systems.plain import frames, load_plain, padded, tokens
from benchmarks.systems.system import SystemSpec, SystemUnable

_MEASURED = 3
_MOST = 64
_ROWS = 16  # of one language, on a GPU


class FullModels:
    """Models are copies of one, in memory of their own. Where not all fit, cells that speak more are refused: where
    memory ends is computed from what a few of them took, so that no machine is brought to its end."""

    def __init__(self, spec: SystemSpec) -> None:
        self._spec = spec

    async def start(self) -> None:
        self._models = [load_plain(self._spec)]
        gc.collect()
        before = self._taken()
        for _ in range(min(_MEASURED, self._spec.adapters - 1)):
            self._models.append(copy.deepcopy(self._models[0]))
        copies = len(self._models) - 1
        stated = sum(tensor.numel() * tensor.element_size() for tensor in self._models[0].state_dict().values())
        self._bytes = max(stated, (self._taken() - before) // copies if copies else 0)
        self._ends_at = int(self._spec.memory_bytes // self._bytes)
        wanted = min(_MOST, self._spec.adapters)
        while len(self._models) < wanted <= self._ends_at:
            self._models.append(copy.deepcopy(self._models[0]))
        layout = Layout(self._spec.cores, 1, 1) if self._spec.on_cpu else Layout(1, self._spec.cores, _ROWS)
        self._layout = layout
        self._batches = Batches(self._forward, layout, one_language=True)

    async def answer(self, samples: np.ndarray, language: int) -> object:
        if language >= len(self._models):
            held = len(self._models)
            why = f"{_MOST} are made at most" if held == _MOST < self._ends_at else "no more fit"
            raise SystemUnable(
                f"{held} models are resident, {why}: memory ends at {self._ends_at}, of"
                f" {self._bytes / 2**20:.0f} MiB each, where they may take {self._spec.memory_bytes / 2**30:.1f} GiB"
            )
        return await self._batches.answer(samples, language)

    async def stop(self) -> None:
        self._batches.stop()

    @property
    def facts(self) -> dict[str, str | int | float]:
        return {
            "chose": str(self._layout),
            "languages": len(self._models),
            "bytes a language": self._bytes,
            "ends at": self._ends_at,
        }

    def _taken(self) -> int:
        return resident_bytes() if self._spec.on_cpu else torch.cuda.memory_allocated()

    @torch.inference_mode()
    def _forward(self, rows: Sequence[Row]) -> list[list[int]]:
        audio, inputs = padded([samples for samples, _ in rows], self._spec)
        model = self._models[rows[0][1]]
        return tokens(model(**inputs).logits, frames(model, audio))
