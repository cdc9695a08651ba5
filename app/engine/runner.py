"""What a lane runs: a batch of jobs and what its rows wear -> the best tokens of every frame."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import ParamSpec, TypeVar

import numpy as np
import torch

from adapters.bank import Bank, Seat
from adapters.ctc import BestPath
from adapters.encoder import Encoder
from adapters.errors import AdapterFormatError
from adapters.frontend import SAMPLE_RATE
from adapters.language_head import LanguageHead
from adapters.recogniser import Begun, Launched, Recogniser, shapes_upto
from adapters.windows import Window, cut
from app.cores import usable_cores
from app.engine.job import Batch, Job
from app.engine.pace import TRIAL_S

P = ParamSpec("P")
T = TypeVar("T")

Paths = tuple[BestPath, ...]
"""Of one job: a path for each of its candidates."""

Result = Paths | Begun
"""Of one job: what its trunk made, or the paths."""


@dataclass(frozen=True)
class Ran:
    """The result of each job, or what is wrong with it alone, and how long the device took over the batch alone."""

    results: Sequence[Result | Exception]
    seconds: float


class Runner:
    """One forward a call of its ``recogniser``, from any thread. ``normalised``: the checkpoint's ``do_normalize``;
    ``threads``: of a lane on a CPU.

    On a CPU the caller's thread is the device. A GPU has a thread that gives it its work; the caller's prepares the
    batch and waits for what comes out, so :attr:`in_flight` callers keep it busy.
    """

    def __init__(
        self,
        encoder: Encoder,
        bank: Bank,
        *,
        head: LanguageHead | None = None,
        normalised: bool = True,
        threads: int | None = None,
    ) -> None:
        self._head, self._threads, self._cores = head, threads, usable_cores()
        self._geometry = encoder.geometry
        self.recogniser = Recogniser(encoder, bank, normalised=normalised)
        self._device_thread: ThreadPoolExecutor | None = None
        if bank.device.type == "cuda":
            self._device_thread = ThreadPoolExecutor(1, thread_name_prefix="device")

    @property
    def in_flight(self) -> int:
        """Batches that a device has use for at a time: on a GPU one that runs, one that it has next, and one that the
        host prepares."""
        return 1 if self._device_thread is None else 3

    def shapes(self, frames: int, rows: int, longest: int) -> list[tuple[int, int]]:
        """The shapes that batches are computed in, where those are few: see :func:`shapes_upto`."""
        return [] if self._device_thread is None else shapes_upto(frames, rows, longest)

    def forward(
        self, batch: Batch, seats: Sequence[Seat], on_half: Callable[[], object] = lambda: None, lanes: int = 1
    ) -> Ran:
        """Row i wears ``seats[i]``; the paths come back without the context of their windows.

        ``on_half`` is called when the device is halfway through: time to make the next batch. ``lanes``: how many it
        has the threads of.
        """
        with self._width(lanes):
            return self._forward(batch, seats, on_half)

    def _forward(self, batch: Batch, seats: Sequence[Seat], on_half: Callable[[], object]) -> Ran:
        windows = [job.window for job in batch.jobs]
        if batch.part == "trunk":
            assert self._head is not None, "nobody begins a trunk that no head reads"
            begun = self._give(self.recogniser.begin, self.recogniser.prepare(windows), self._head)
            results: Sequence[Begun] = _collect(begun, on_half)
            return Ran(results, begun.seconds)
        rows = [number for number, job in enumerate(batch.jobs) for _ in job.worn]
        emissions = [row for row, number in enumerate(rows) if batch.jobs[number].emissions]
        if batch.part == "top":
            frames = [job.begun for job in batch.jobs if job.begun is not None]
            heard = self._give(self.recogniser.finish, frames, windows, rows, seats, emissions)
        else:
            heard = self._give(self.recogniser.whole, self.recogniser.prepare(windows), windows, rows, seats, emissions)
        return Ran(_by_job(batch, _collect(heard, on_half)), heard.seconds)

    def trial_s(self, rows: int) -> float:
        """The seconds of a forward of ``rows`` rows of noise that wear nothing, run as serving will run it: of a graph
        where there are graphs, since kernel by kernel a deep backbone on a GPU takes as long as Python does."""
        windows = [*cut([noise(round(TRIAL_S * SAMPLE_RATE))], self._geometry)] * rows
        for _ in range(self.recogniser.settled):
            bare = self._give(self.recogniser.bare, self.recogniser.prepare(windows))
            bare.result()
        return bare.seconds

    def rehearse(self, shapes: Sequence[tuple[int, int]], seats: Sequence[Seat], within_s: float) -> int:
        """Noise in each of ``shapes`` (rows, samples a row), row i in ``seats[i]`` and over again, until all later
        batches of the shape go as fast as they ever will. Stops when ``within_s`` are over: how many it got through."""
        until = time.monotonic() + within_s
        heard = noise(max(width for _, width in shapes))
        for number, (rows, width) in enumerate(shapes):
            if time.monotonic() > until:
                return number
            windows = [Window(0, heard[:width], 0, self._geometry.frames(width))] * rows
            worn = [seats[row % len(seats)] for row in range(rows)]
            for _ in range(self.recogniser.settled - 1):
                audio = self.recogniser.prepare(windows)
                self._give(self.recogniser.whole, audio, windows, range(rows), worn).result()
        return len(shapes)

    @contextlib.contextmanager
    def _width(self, lanes: int) -> Iterator[None]:
        """Sets it for the calling thread alone; one that meets torch for the first time meanwhile takes it over."""
        if lanes == 1 or self._threads is None:
            yield
            return
        torch.set_num_threads(max(self._threads, min(lanes * self._threads, self._cores)))
        try:
            yield
        finally:
            torch.set_num_threads(self._threads)

    def _give(self, launch: Callable[P, T], *given: P.args, **also: P.kwargs) -> T:
        """Call ``launch`` in the thread of the device."""
        if self._device_thread is None:
            return launch(*given, **also)
        return self._device_thread.submit(launch, *given, **also).result()


def noise(samples: int) -> np.ndarray:
    """The same every time, (N,) float32: what is run where there is nothing to hear."""
    return np.random.default_rng(0).standard_normal(samples).astype(np.float32) * 0.1


def _collect(launched: Launched[T], on_half: Callable[[], object]) -> T:
    launched.half.synchronize()
    on_half()
    return launched.result()


def _by_job(batch: Batch, found: Sequence[BestPath]) -> list[Paths | AdapterFormatError]:
    """The paths of each job; an error for one that wears an adapter whose logits are no numbers."""
    paths = iter(found)
    return [_checked(job, tuple(islice(paths, len(job.worn)))) for job in batch.jobs]


def _checked(job: Job, paths: Paths) -> Paths | AdapterFormatError:
    for worn, path in zip(job.worn, paths, strict=True):
        if not np.isfinite(path.probabilities).all():
            return AdapterFormatError(worn.name, f"version {worn.version} gives logits that are no numbers")
    return paths
