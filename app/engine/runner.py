"""What a lane runs: a batch of jobs and what its rows wear -> the best tokens of every frame."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np

from adapters.bank import Bank, Seat
from adapters.ctc import BestPath
from adapters.encoder import Encoder
from adapters.errors import AdapterFormatError
from adapters.language_head import LanguageHead
from adapters.recognise import Begun, begin, finish, recognise
from app.engine.job import Batch

Paths = tuple[BestPath, ...]
"""Of one job: a path for each of its candidates."""

Result = Paths | Begun
"""Of one job: what its trunk made, or the paths."""


class Runner:
    """One forward a call, from any thread. ``normalised``: the checkpoint's ``do_normalize``."""

    def __init__(
        self, encoder: Encoder, bank: Bank, *, head: LanguageHead | None = None, normalised: bool = True
    ) -> None:
        self._encoder, self._bank, self._head, self._normalised = encoder, bank, head, normalised

    def forward(self, batch: Batch, seats: Sequence[Seat]) -> Sequence[Result]:
        """Row i wears ``seats[i]``; the paths come back without the context of their windows."""
        windows = [job.window for job in batch.jobs]
        if batch.part == "trunk":
            assert self._head is not None, "nobody begins a trunk that no head reads"
            return begin(self._encoder, windows, self._head, normalised=self._normalised)
        rows = [number for number, job in enumerate(batch.jobs) for _ in job.worn]
        worn = self._bank.dress(seats)
        if batch.part == "top":
            begun = [job.begun for job in batch.jobs if job.begun is not None]
            found = finish(self._encoder, begun, windows, worn, rows)
        else:
            found = recognise(self._encoder, windows, worn, normalised=self._normalised, rows=rows)
        return _by_job(batch, found)


def _by_job(batch: Batch, found: Sequence[BestPath]) -> list[Paths]:
    """Raises :class:`~adapters.errors.AdapterFormatError` for an adapter whose logits are no numbers."""
    paths = iter(found)
    told = [tuple(islice(paths, len(job.worn))) for job in batch.jobs]
    for job, some in zip(batch.jobs, told, strict=True):
        for worn, path in zip(job.worn, some, strict=True):
            if not np.isfinite(path.probabilities).all():
                raise AdapterFormatError(worn.name, f"version {worn.version} gives logits that are no numbers")
    return told
