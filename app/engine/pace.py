"""How much a batch may hold on this machine: the budget follows from forwards that were timed at start.

A batch that takes long keeps a clip that comes meanwhile waiting, so a slow machine or a large backbone wants small
ones; small ones cost throughput where a forward has a fixed cost. Pure arithmetic; who measures passes the seconds in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

TRIAL_S, TRIAL_FRAMES = 2.0, 100  # a row of a trial


class Measured(NamedTuple):
    """Of one lane: the ``frames`` that its batches may hold, and how many it computes in the time that a step takes
    besides, the ``overhead``."""

    frames: int
    overhead: int


@dataclass(frozen=True)
class Pace:
    """``step_s``: what a forward may take, or ``singles`` times what one row takes, if that is more: where a GPU has
    much to do whatever a batch holds, more rows are nearly free up to there. ``least`` and ``most``: bounds of the
    budget in frames."""

    step_s: float = 0.4
    least: int = 200
    most: int = 1_600
    singles: float = 0.0

    def measure(self, forward_s: Callable[[int], float]) -> Measured:
        """``forward_s(rows)`` runs rows of :data:`TRIAL_FRAMES` and says how long they took.

        Rows double until a forward takes longer than that or holds ``most`` frames, so that a slow machine is
        asked for little more than one such step.
        """
        rows, seconds = 1, forward_s(1)
        alone_s = seconds
        step_s = max(self.step_s, self.singles * seconds)
        while seconds <= step_s and rows * 2 * TRIAL_FRAMES <= self.most:
            rows *= 2
            seconds = forward_s(rows)
        fitting = rows * TRIAL_FRAMES * step_s / seconds
        row_s = (seconds - alone_s) / (rows - 1) if rows > 1 else alone_s
        overhead = TRIAL_FRAMES * (alone_s / row_s - 1) if row_s > 0 else self.most
        return Measured(round(min(max(fitting, self.least), self.most)), round(min(max(overhead, 0.0), self.most)))
