"""What a lane runs: a batch of jobs and what its rows wear -> the best tokens of every frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from adapters.bank import Bank, Seat
from adapters.ctc import BestPath
from adapters.encoder import Encoder
from adapters.errors import AdapterFormatError
from adapters.recognise import Launched, Prepared, Recogniser
from app.engine.job import Batch

Paths = tuple[BestPath, ...]
"""Of one job: a path for each of its candidates."""


@dataclass(frozen=True)
class Ran:
    """The paths of each job, and how long the device took over the batch alone."""

    paths: list[Paths]
    seconds: float


class Runner:
    """One forward a call, from any thread. ``normalised``: the checkpoint's ``do_normalize``.

    On a CPU the caller's thread is the device. A GPU has a thread that gives it its work; the caller's prepares the
    batch and waits for what comes out, so :attr:`in_flight` callers keep it busy.
    """

    def __init__(self, encoder: Encoder, bank: Bank, *, normalised: bool = True) -> None:
        self._recogniser = Recogniser(encoder, bank, normalised=normalised)
        self._device_thread: ThreadPoolExecutor | None = None
        if bank.device.type == "cuda":
            self._device_thread = ThreadPoolExecutor(1, thread_name_prefix="device")
            torch.backends.cudnn.allow_tf32 = False  # who asks for float32 asks for its digits

    @property
    def in_flight(self) -> int:
        """Batches that a device has use for at a time: on a GPU one that runs and one that is next."""
        return 1 if self._device_thread is None else 2

    def forward(self, batch: Batch, seats: Sequence[Seat], on_half: Callable[[], object] = lambda: None) -> Ran:
        """Row i wears ``seats[i]``; the paths come back without the context of their windows.

        ``on_half`` is called when the device is halfway through: time to make the next batch.
        """
        rows = [number for number, job in enumerate(batch.jobs) for _ in job.worn]
        launched = self._launch(self._recogniser.prepare([job.window for job in batch.jobs], rows), seats)
        launched.half.synchronize()
        on_half()
        paths = iter(launched.paths())
        told = [tuple(islice(paths, len(job.worn))) for job in batch.jobs]
        for job, some in zip(batch.jobs, told, strict=True):
            for worn, path in zip(job.worn, some, strict=True):
                if not np.isfinite(path.probabilities).all():
                    raise AdapterFormatError(worn.name, f"version {worn.version} gives logits that are no numbers")
        return Ran(told, launched.seconds)

    def _launch(self, prepared: Prepared, seats: Sequence[Seat]) -> Launched:
        if self._device_thread is None:
            return self._recogniser.launch(prepared, seats)
        return self._device_thread.submit(self._recogniser.launch, prepared, seats).result()
