"""The adapters that one recording may be in, and what speaks for each of them.

One alone answers. Of several that were named, and of those that the language head shortlists, all hear the first
windows, some seconds in all; then the likeliest stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from adapters.ctc import BestPath
from adapters.errors import AdapterError
from adapters.loaded import LoadedAdapter
from adapters.recogniser import Begun
from adapters.registry import RegisteredAdapter
from adapters.windows import Window
from app.engine.hands import Hands
from app.engine.telling import Telling

DECIDING_WINDOWS, DECIDING_FRAMES = 2, 200
"""What decides: so many windows at least, and so much speech; a window may be a word between two pauses."""


def decides(windows: int, frames: int) -> bool:
    """Whether so many windows in which something is said, of so many frames together, are enough."""
    return windows >= DECIDING_WINDOWS and frames >= DECIDING_FRAMES


@dataclass
class Candidate:
    """``number``: of its language in the head; ``log_probability``: of its paths in the windows that decide."""

    adapter: RegisteredAdapter
    loaded: LoadedAdapter
    number: int | None
    log_probability: float = 0.0


@dataclass(frozen=True)
class Ranked:
    """A candidate and how likely its best path is: the mean of its frames' log probabilities, 0 at most.
    ``probability``: that this is the language, where the head can tell."""

    adapter: RegisteredAdapter
    score: float
    probability: float | None = None


class Candidates:
    """``adapters`` are those that were named; with ``telling`` the language head has its say."""

    def __init__(self, adapters: Sequence[RegisteredAdapter], telling: Telling | None, hands: Hands) -> None:
        self._adapters, self._telling, self._hands = tuple(adapters), telling, hands
        self._all: list[Candidate] = []
        self._told: np.ndarray | None = None  # by the head, (L,)
        self._windows = self._frames = 0  # that the log probabilities are of
        self.left: list[Candidate] = []  #: those that are still heard
        for adapter in self._adapters:
            hands.hold(adapter)  # they are loaded while the audio is decoded

    async def known(self) -> None:
        """Load them where they are known without listening. Raises :class:`~adapters.errors.AdapterError`."""
        if self._telling is None or self._telling.named:
            numbers = [None] * len(self._adapters) if self._telling is None else list(self._telling.adapters)
            for number, adapter in zip(numbers, self._adapters, strict=True):
                self._all.append(Candidate(adapter, await self._hands.loaded(adapter), number))
            self.left = list(self._all)

    @property
    def asks_head(self) -> bool:
        """The language head has a say, and has heard nothing yet."""
        return self._telling is not None and self._told is None

    async def listen(self, window: Window) -> Begun:
        """Let the head hear ``window``: its trunk, and those that it shortlists are loaded. One that cannot be is left
        out, unless it is the likeliest. Raises :class:`~adapters.errors.AdapterError` for that one, and what
        :meth:`Telling.likeliest` does."""
        assert self._telling is not None
        begun = await self._hands.begin(window)
        self._told = begun.log_probabilities
        likeliest = None if self._telling.named else self._telling.likeliest(self._told)
        await self._shortlist(self._telling, likeliest)
        return begun

    async def nothing_said(self) -> None:
        """There was no such window: whoever comes first answers, for what that is worth."""
        if self._telling is not None and self._told is None:
            self._told = self._telling.unheard
            await self._shortlist(self._telling)

    async def _shortlist(self, telling: Telling, likeliest: int | None = None) -> None:
        if telling.named:
            return
        assert self._told is not None
        failed: AdapterError | None = None
        numbers = telling.shortlist(self._told)
        for number in numbers:
            self._hands.hold(telling.adapters[number])
        for number in numbers:
            adapter = telling.adapters[number]
            try:
                self._all.append(Candidate(adapter, await self._hands.loaded(adapter), number))
            except AdapterError as error:
                failed = error
                if number == likeliest:
                    raise
        if failed is not None and not self._all:
            raise failed
        self.left = list(self._all)

    def take_in(self, frames: int, paths: Mapping[str, BestPath]) -> None:
        """What was heard in a window of ``frames`` frames, by the names of adapters."""
        if decides(self._windows, self._frames):
            return
        for candidate in self.left:
            candidate.log_probability += paths[candidate.adapter.name].log_probability
        self._frames += frames
        self._windows += 1
        if decides(self._windows, self._frames):
            self.left = self._ordered()[:1]

    def ranked(self) -> tuple[Ranked, ...]:
        """All of them, the likeliest first; of equal ones the first that was named."""
        probabilities = self._probabilities()
        return tuple(Ranked(c.adapter, self._score(c), probabilities.get(c.adapter.name)) for c in self._ordered())

    @property
    def best(self) -> Candidate:
        """The likeliest."""
        return self._ordered()[0]

    def _ordered(self) -> list[Candidate]:
        probabilities = self._probabilities()
        return sorted(self._all, key=lambda c: probabilities.get(c.adapter.name, self._score(c)), reverse=True)

    def _probabilities(self) -> dict[str, float]:
        """By the adapters' names; of none without a head."""
        if self._telling is None or self._told is None:
            return {}
        numbers = [c.number for c in self._all if c.number is not None]
        found = self._telling.head.probabilities(self._told, numbers, [self._score(c) for c in self._all])
        return {c.adapter.name: probability for c, probability in zip(self._all, found, strict=True)}

    def _score(self, candidate: Candidate) -> float:
        return candidate.log_probability / max(1, self._frames)
