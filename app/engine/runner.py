"""What a lane runs: a batch of jobs and what its rows wear -> the best token of every frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adapters.bank import Bank, Seat
from adapters.ctc import BestPath
from adapters.encoder import Encoder
from adapters.errors import EngineError
from adapters.recognise import recognise
from app.engine.job import Batch


class Runner:
    """One forward a call, from any thread. ``normalised``: the checkpoint's ``do_normalize``."""

    def __init__(self, encoder: Encoder, bank: Bank, *, normalised: bool = True) -> None:
        self._encoder, self._bank, self._normalised = encoder, bank, normalised

    def forward(self, batch: Batch, seats: Sequence[Seat]) -> list[BestPath]:
        """Row i wears ``seats[i]``; the paths come back without the context of their windows."""
        windows = [job.window for job in batch.jobs]
        paths = recognise(self._encoder, windows, self._bank.dress(seats), normalised=self._normalised)
        for job, path in zip(batch.jobs, paths, strict=True):
            if not np.isfinite(path.probabilities).all():
                raise EngineError(f"{job.worn.name} {job.worn.version} gives logits that are no numbers")
        return paths
