"""What a lane runs: a batch of jobs and what its rows wear -> the best tokens of every frame."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from time import perf_counter

import numpy as np

from adapters.bank import Bank, Seat
from adapters.ctc import BestPath
from adapters.encoder import Encoder
from adapters.errors import AdapterFormatError
from adapters.frontend import SAMPLE_RATE
from adapters.recognise import recognise
from adapters.windows import cut
from app.engine.job import Batch
from app.engine.pace import TRIAL_S

Paths = tuple[BestPath, ...]
"""Of one job: a path for each of its candidates."""


class Runner:
    """One forward a call, from any thread. ``normalised``: the checkpoint's ``do_normalize``."""

    def __init__(self, encoder: Encoder, bank: Bank, *, normalised: bool = True) -> None:
        self._encoder, self._bank, self._normalised = encoder, bank, normalised

    def forward(self, batch: Batch, seats: Sequence[Seat]) -> list[Paths]:
        """Row i wears ``seats[i]``; the paths come back without the context of their windows."""
        rows = [number for number, job in enumerate(batch.jobs) for _ in job.worn]
        found = recognise(
            self._encoder,
            [job.window for job in batch.jobs],
            self._bank.dress(seats),
            normalised=self._normalised,
            rows=rows,
        )
        paths = iter(found)
        told = [tuple(islice(paths, len(job.worn))) for job in batch.jobs]
        for job, some in zip(batch.jobs, told, strict=True):
            for worn, path in zip(job.worn, some, strict=True):
                if not np.isfinite(path.probabilities).all():
                    raise AdapterFormatError(worn.name, f"version {worn.version} gives logits that are no numbers")
        return told

    def trial_s(self, rows: int) -> float:
        """The seconds of a forward of ``rows`` rows of noise that wear nothing, the second of its kind: the first
        compiles kernels and touches memory."""
        noise = np.random.default_rng(0).standard_normal(round(TRIAL_S * SAMPLE_RATE)).astype(np.float32) * 0.1
        windows = [*cut([noise], self._encoder.geometry)] * rows
        for _ in range(2):
            began = perf_counter()
            recognise(self._encoder, windows, self._encoder.bare, normalised=self._normalised)
        return perf_counter() - began
