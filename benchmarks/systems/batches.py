"""Requests -> batches on threads: what every system but the engine queues with, as simply as can be.

Each lane takes the oldest request and, up to ``rows``, those of the queue whose clips are nearest to it in length.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import torch

Row = tuple[np.ndarray, int]
"""A clip, (N,) float32 at 16 kHz, and the number of its language."""

Forward = Callable[[Sequence[Row]], list[list[int]]]
"""Rows of one batch -> the tokens of each, repeats and blanks taken out."""

_FAR_BEHIND = 1.2
_TO_RECORD = 3  # a batch of a shape runs kernel by kernel, the next records it, and batches are not the same each time


@dataclass(frozen=True)
class Layout:
    """``lanes`` threads that each run batches of at most ``rows`` rows on ``threads`` cores."""

    lanes: int
    threads: int
    rows: int

    def __str__(self) -> str:
        return f"{self.lanes} x {self.threads} threads, {self.rows} rows"


def tried(cores: int, *, on_cpu: bool) -> int:
    """How many clips a trial of a layout takes, queued at once: enough that no lane and no batch waits for others."""
    return 4 * cores if on_cpu else 128


def layouts(cores: int, *, on_cpu: bool, lanes: bool = True) -> list[Layout]:
    """Those worth a try: on a GPU large batches; on a CPU one lane of all cores or, with ``lanes``, one a core."""
    if not on_cpu:
        return [Layout(1, cores, rows) for rows in (16, 32, 64)]
    sides = [(1, cores), (cores, 1)] if lanes and cores > 1 else [(1, cores)]
    return [Layout(count, threads, rows) for count, threads in sides for rows in (1, 4)]


class Batches:
    """A queue and the lanes that empty it."""

    def __init__(self, forward: Forward, layout: Layout, *, one_language: bool = False) -> None:
        """``one_language``: rows of a batch speak the same."""
        self._forward, self._layout, self._one_language = forward, layout, one_language
        self._queue: list[tuple[Row, Future[list[int]]]] = []
        self._changed = threading.Condition()
        self._stopped = False
        self._lanes = [threading.Thread(target=self._run, daemon=True) for _ in range(layout.lanes)]
        for lane in self._lanes:
            lane.start()

    async def answer(self, samples: np.ndarray, language: int) -> list[int]:
        """Queue one clip and wait for its tokens."""
        return await asyncio.wrap_future(self.submit((samples, language)))

    def submit(self, row: Row) -> Future[list[int]]:
        """Queue one clip; its tokens come later."""
        answer: Future[list[int]] = Future()
        with self._changed:
            self._queue.append((row, answer))
            self._changed.notify()
        return answer

    def stop(self) -> None:
        """End the lanes; what is queued stays unanswered."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for lane in self._lanes:
            lane.join()

    def _run(self) -> None:
        torch.set_num_threads(self._layout.threads)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._stopped)
                if self._stopped:
                    return
                batch = self._take()
            try:
                answers = self._forward([row for row, _ in batch])
            except Exception as error:
                for _, future in batch:
                    future.set_exception(error)
            else:
                for (_, future), answer in zip(batch, answers, strict=True):
                    future.set_result(answer)

    def _take(self) -> list[tuple[Row, Future[list[int]]]]:
        oldest, spoken = self._queue[0][0][0].size, self._queue[0][0][1]
        waiting = [i for i, (row, _) in enumerate(self._queue) if not self._one_language or row[1] == spoken]
        nearest = sorted(waiting, key=lambda index: abs(self._queue[index][0][0].size - oldest))
        chosen = nearest[: self._layout.rows]
        if 0 not in chosen:  # others as long as it
            chosen[-1] = 0
        batch = [self._queue[index] for index in chosen]
        for index in sorted(chosen, reverse=True):
            del self._queue[index]
        return batch


def fastest(candidates: Sequence[tuple[Forward, Layout]], clips: Sequence[np.ndarray], *, on_cpu: bool) -> int:
    """The number of the candidate that gets through ``clips`` first. On a CPU after a try that does not count but for
    those that are far behind by then; on a GPU after as many as it takes to choose kernels and record graphs."""
    best, chosen = float("inf"), 0
    for number, (forward, layout) in enumerate(candidates):
        if (taken := _trial_s(forward, layout, clips, best, on_cpu=on_cpu)) < best:
            best, chosen = taken, number
    return chosen


def _trial_s(forward: Forward, layout: Layout, clips: Sequence[np.ndarray], best: float, *, on_cpu: bool) -> float:
    batches = Batches(forward, layout)

    def once() -> float:
        began = time.perf_counter()
        for answer in [batches.submit((clip, index)) for index, clip in enumerate(clips)]:
            answer.result()
        return time.perf_counter() - began

    try:
        if not on_cpu:
            for _ in range(_TO_RECORD):
                once()
            return min(once(), once())
        if once() > _FAR_BEHIND * best:
            return float("inf")
        return once()
    finally:
        batches.stop()
