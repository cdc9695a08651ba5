"""When to try again what failed."""

from __future__ import annotations


class Backoff:
    """After ``first_s`` seconds, then after twice as long each time, and never after more than ``longest_s``.

    Knows no clock: ``now`` is in seconds of the caller's.
    """

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self._wait_s = first_s
        self._due_at = float("-inf")

    def failed(self, now: float) -> None:
        """It was tried, in vain."""
        self._due_at = now + self._wait_s
        self._wait_s = min(2 * self._wait_s, self._longest_s)

    def worked(self) -> None:
        """Nothing is wrong any more."""
        self._wait_s, self._due_at = self._first_s, float("-inf")

    def due(self, now: float) -> bool:
        """Whether it is time to try."""
        return now >= self._due_at
