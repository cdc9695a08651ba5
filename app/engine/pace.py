"""How much a batch may hold on this machine: the budget follows from forwards that were timed at start.

A batch that takes long keeps a clip that comes meanwhile waiting, so a slow machine or a large backbone wants small
ones; small ones cost throughput where a forward has a fixed cost. Pure arithmetic; who measures passes the seconds in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

TRIAL_S, TRIAL_FRAMES = 2.0, 100  # a row of a trial


@dataclass(frozen=True)
class Pace:
    """``step_s``: what a forward may take, or ``singles`` times what one row takes, if that is more: where a GPU has
    much to do whatever a batch holds, more rows are nearly free up to there. ``least`` and ``most``: bounds of the
    budget in frames."""

    step_s: float = 0.4
    least: int = 200
    most: int = 1_600
    singles: float = 0.0

    def frames(self, forward_s: Callable[[int], float]) -> int:
        """The budget in frames. ``forward_s(rows)`` runs rows of :data:`TRIAL_FRAMES` and says how long they took.

        Rows double until a forward takes longer than that or holds ``most`` frames, so that a slow machine is
        asked for little more than one such step.
        """
        rows, seconds = 1, forward_s(1)
        step_s = max(self.step_s, self.singles * seconds)
        while seconds <= step_s and rows * 2 * TRIAL_FRAMES <= self.most:
            rows *= 2
            seconds = forward_s(rows)
        fitting = rows * TRIAL_FRAMES * step_s / seconds
        return round(min(max(fitting, self.least), self.most))
