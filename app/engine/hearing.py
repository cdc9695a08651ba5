"""One request: its audio is cut into windows, and the paths that come back become words.

In several adapters at once, every window is heard in each of them, its trunk once for all; after the first windows the
likeliest stays and the others are let go.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from adapters.ctc import BestPath, Transcript, transcript
from adapters.errors import AudioTooShort
from adapters.frontend import SAMPLE_RATE, Geometry
from adapters.registry import RegisteredAdapter
from adapters.store import LoadedAdapter
from adapters.windows import Window, WindowShape, cut
from app.engine.runner import Paths

DECIDING_WINDOWS = 2

Submit = Callable[[Window, Sequence[RegisteredAdapter]], asyncio.Future[Paths]]


@dataclass(frozen=True)
class Ranked:
    """A candidate and how likely its best path is: the mean of its frames' log probabilities, 0 at most."""

    adapter: RegisteredAdapter
    score: float


@dataclass(frozen=True)
class Answer:
    """What was said, in the adapter that is the likeliest, and all that were tried, the likeliest first."""

    transcript: Transcript
    adapter: RegisteredAdapter
    ranked: tuple[Ranked, ...]


class Hearing:
    """One recording in one or several adapters.

    ``loaded`` waits for the host copies of the adapters, ``submit`` queues a window, ``in_flight`` at most at a time.
    """

    def __init__(
        self,
        adapters: Sequence[RegisteredAdapter],
        loaded: Callable[[RegisteredAdapter], Awaitable[LoadedAdapter]],
        submit: Submit,
        geometry: Geometry,
        shape: WindowShape,
        *,
        in_flight: int,
    ) -> None:
        self._adapters, self._loaded, self._submit = tuple(adapters), loaded, submit
        self._geometry, self._shape, self._in_flight = geometry, shape, in_flight
        self._left = list(range(len(adapters)))  # candidates that are still heard
        self._heard: list[dict[int, BestPath]] = []  # the paths of each window, by candidate
        self._log_probabilities = [0.0] * len(adapters)
        self._frames = 0  # that these are of

    async def answer(self, audio: Iterable[np.ndarray]) -> Answer:
        """Hear all of ``audio``, blocks that are pulled in a thread as windows are needed.

        Raises what the iterable raises, :class:`~adapters.errors.AdapterError` where an adapter cannot be loaded, and
        :class:`~adapters.errors.AudioTooShort`.
        """
        counted = _Counted(audio)
        windows = cut(counted, self._geometry, self._shape)
        window = await asyncio.to_thread(next, windows, None)  # while the adapters are being loaded
        loaded = [await self._loaded(adapter) for adapter in self._adapters]
        pending: deque[tuple[bool, list[int], asyncio.Future[Paths]]] = deque()
        while window is not None:
            while len(pending) >= self._in_flight:
                self._take_in(*pending[0][:2], await pending[0][2])
                pending.popleft()
            left = list(self._left)
            if window.silent:
                blanks = tuple(BestPath.blanks(window.keep, loaded[number].vocab.blank) for number in left)
                pending.append((False, left, _known(blanks)))
            else:
                pending.append((True, left, self._submit(window, [self._adapters[number] for number in left])))
            window = await asyncio.to_thread(next, windows, None)
        for spoken, left, paths in pending:
            self._take_in(spoken, left, await paths)
        if not self._heard:
            raise AudioTooShort(
                f"{counted.samples} samples at {SAMPLE_RATE} Hz; at least {self._geometry.receptive_field} are needed"
            )
        ranking = self._ranking()
        best = ranking[0]
        told = await asyncio.to_thread(
            transcript,
            BestPath.join(paths[best] for paths in self._heard),
            loaded[best].vocab,
            frame_s=self._geometry.hop / SAMPLE_RATE,
            duration_s=counted.samples / SAMPLE_RATE,
        )
        ranked = tuple(Ranked(self._adapters[number], self._score(number)) for number in ranking)
        return Answer(told, self._adapters[best], ranked)

    def _take_in(self, spoken: bool, left: list[int], paths: Paths) -> None:
        self._heard.append(dict(zip(left, paths, strict=True)))
        if not spoken or len(self._left) == 1:
            return
        for number, path in self._heard[-1].items():
            self._log_probabilities[number] += path.log_probability
        self._frames += len(paths[0])
        if len(self._heard) >= DECIDING_WINDOWS:
            self._left = self._ranking()[:1]

    def _ranking(self) -> list[int]:
        """All candidates, the likeliest first; of equal ones the first that was named."""
        return sorted(range(len(self._adapters)), key=self._score, reverse=True)

    def _score(self, number: int) -> float:
        return self._log_probabilities[number] / max(1, self._frames)


class _Counted:
    """Blocks as they come, counting samples."""

    def __init__(self, blocks: Iterable[np.ndarray]) -> None:
        self._blocks = blocks
        self.samples = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self._blocks:
            self.samples += block.size
            yield block


def _known(paths: Paths) -> asyncio.Future[Paths]:
    answer: asyncio.Future[Paths] = asyncio.get_running_loop().create_future()
    answer.set_result(paths)
    return answer
