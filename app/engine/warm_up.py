"""Before traffic: kernels chosen, memory touched, the budget measured and, on a GPU, every shape run.

A GPU chooses kernels the first time that a shape comes and records a graph the second time, each longer than a hundred
steps of it. There are a few hundred shapes, so they are all run at start; what is left when that has taken too long
comes to be as traffic brings it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from adapters.errors import AdapterError, BankFull, EngineError
from adapters.frontend import SAMPLE_RATE
from adapters.registry import RegisteredAdapter
from app.engine.config import EngineConfig
from app.engine.job import Worn, worn_of
from app.engine.lanes import Lanes
from app.engine.pace import Pace
from app.engine.residency import Residency
from app.engine.runner import Runner
from app.engine.scheduler import Scheduler

log = logging.getLogger("tongues.engine")

_REHEARSAL_S = 60.0
_KINDS = 4
"""Adapters of so many kinds take part in a rehearsal: each makes its pools, and batches wear something of all."""


@dataclass(frozen=True)
class WarmUp:
    """Of one engine's lanes; ``try_out`` transcribes noise in one adapter."""

    config: EngineConfig
    lanes: Lanes
    runner: Runner
    scheduler: Scheduler
    residency: Residency
    try_out: Callable[[RegisteredAdapter], Awaitable[None]]

    async def run(self, near: Iterable[RegisteredAdapter]) -> None:
        """Noise through every lane, and through the first of ``near`` that can be worn; on a GPU through one of each
        kind, and in every shape. Raises what keeps every one of them from being heard, but for faults of the adapters
        themselves."""
        try:
            if self.config.pace is None:
                await self.lanes.everywhere(lambda: self.runner.trial_s(1))
            else:
                await self._find_budget(self.config.pace)
        except RuntimeError as error:  # torch's, out of memory for one
            raise EngineError(f"no forward succeeds: {error}") from error
        budget, window = self.scheduler.budget, self.config.window
        longest = round((window.longest_s + 2 * window.context_s) * SAMPLE_RATE)
        shapes = self.runner.shapes(budget.max_frames, budget.max_rows, longest)
        tried = await self._try_kinds(near, most=_KINDS if shapes else 1)
        if not tried:
            log.info("no adapter lies here yet to warm up with")
        elif shapes:
            await self._rehearse(shapes, [worn_of(adapter) for adapter in tried])

    async def _find_budget(self, pace: Pace) -> None:
        measured = await self.lanes.everywhere(lambda: pace.measure(self.runner.trial_s))
        frames, overhead = min(one.frames for one in measured), max(one.overhead for one in measured)
        budget = replace(self.scheduler.budget, max_frames=frames)
        if budget.overhead is not None:
            budget = replace(budget, overhead=overhead)
        self.scheduler.budget = budget
        log.info("batches of up to %d frames, which a lane runs in about %g s", frames, pace.step_s)
        log.info("a step costs a lane as much as %d frames besides", overhead)

    async def _try_kinds(self, near: Iterable[RegisteredAdapter], most: int) -> list[RegisteredAdapter]:
        """Those that could be worn, of each kind the first."""
        found: dict[Hashable, RegisteredAdapter] = {}
        for adapter in near:
            config = adapter.record.config
            kind = (config.method, config.size, config.layers, config.norms)
            if kind not in found and len(found) < most:
                with contextlib.suppress(AdapterError, BankFull):
                    await self.try_out(adapter)
                    found[kind] = adapter
        return list(found.values())

    async def _rehearse(self, shapes: Sequence[tuple[int, int]], tried: Sequence[Worn]) -> None:
        now = time.monotonic()
        worn = [one for one in tried if self.residency.seatable((one,), now)]
        for one in {*tried} - {*worn}:  # another one took its seat
            self.residency.forget((one,))
        if not worn:
            return
        for one in worn:
            self.residency.take((one,))
        seats = [self.residency.seat(one) for one in worn]
        try:
            done = min(await self.lanes.everywhere(lambda: self.runner.rehearse(shapes, seats, _REHEARSAL_S)))
            log.info("%d of %d shapes are warm after %.1f s", done, len(shapes), time.monotonic() - now)
        except torch.OutOfMemoryError as error:
            log.warning("not every shape of a batch fits the device: %s", error)
        finally:
            self.residency.release([(one,) for one in worn], time.monotonic())
