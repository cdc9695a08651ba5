"""One request: its audio is cut into windows, and the paths that come back become words.

In several adapters at once, every window is heard in each of them, its trunk once for all; after the first windows the
likeliest stays and the others are let go.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np

from adapters.ctc import BestPath, Transcript, Word
from adapters.decoding import GREEDY, Decoding
from adapters.errors import AudioTooShort, TonguesError
from adapters.frontend import SAMPLE_RATE, Geometry
from adapters.recogniser import Begun
from adapters.registry import RegisteredAdapter
from adapters.windows import Window, WindowShape, cut
from app.engine.candidates import Candidates, Ranked, decides
from app.engine.hands import Hands
from app.engine.runner import Paths
from app.engine.searches import Searches

_DECODED_AT_ONCE = 1_000
"""Frames of a path that is decoded greedily on the loop, in a millisecond: a thread would hold the interpreter's lock
for as long, and the way there and back costs more."""
_CUT_AT_ONCE_S = 17
"""Likewise: audio that is all there and no longer, mostly one window, is cut on the loop, in a third of a
millisecond. A thread takes three times as long where others want the interpreter's lock."""
_LONG_ENOUGH_S, _ENOUGH_S, _MOST_AHEAD = 2, 6, 16
"""Where a language is to be told, a window of so many seconds is looked for within so many of speech or so many
windows: what comes before the first pause may be a word."""


@dataclass(frozen=True)
class Answer:
    """What was said, in the adapter that is the likeliest, and all that were tried, the likeliest first."""

    transcript: Transcript
    adapter: RegisteredAdapter
    ranked: tuple[Ranked, ...]


@dataclass(frozen=True)
class _Sent:
    """A window on its way: its own frames, and in which adapters it is heard; in none where it is silent."""

    frames: int
    names: list[str]
    paths: asyncio.Future[Paths] | None

    def forget(self) -> None:
        """Nobody asks how it ends, which asyncio would complain of in the log where that is a failure."""
        if self.paths is not None:
            self.paths.add_done_callback(lambda paths: paths.cancelled() or paths.exception())


@dataclass(frozen=True)
class _Heard:
    """A window's path by the name of the adapter that was worn."""

    frames: int
    paths: dict[str, BestPath]


class Hearing:
    """One recording in its ``candidates``; ``in_flight`` windows at a time. ``pulls``: threads that may wait for
    audio."""

    def __init__(
        self,
        candidates: Candidates,
        hands: Hands,
        searches: Searches,
        geometry: Geometry,
        shape: WindowShape,
        decoding: Decoding = GREEDY,
        *,
        in_flight: int,
        pulls: Executor,
    ) -> None:
        self._pulls = pulls
        self._candidates, self._hands, self._searches, self._decoding = candidates, hands, searches, decoding
        self._geometry, self._shape, self._in_flight = geometry, shape, in_flight
        self._heard: list[_Heard] = []
        self._loud = self._loud_frames = 0  # of windows that were sent and are not silent
        self._listened: tuple[Window, Begun] | None = None  # by the language head
        self._checked: list[str] = []
        self._ended = False  # there are no more windows than were pulled

    async def answer(self, audio: Iterable[np.ndarray]) -> Answer:
        """Hear all of ``audio``: blocks that are pulled in a thread as windows are needed, or a short list of them.

        Raises what the iterable raises, what loading the candidates raises, :class:`~adapters.errors.AudioTooShort`,
        and what decoding raises, before anything is heard in vain.
        """
        counted = _Counted(audio)
        windows = cut(counted, self._geometry, self._shape)
        at_once = _at_once(audio)
        pulled = await self._pull(windows, at_once=at_once)  # while the adapters are being loaded
        await self._candidates.known()
        await self._check()
        sent: deque[_Sent] = deque()
        try:
            while pulled:
                if self._candidates.asks_head:
                    await self._tell_language(windows, pulled, at_once=at_once)
                for window in pulled:
                    while len(sent) >= self._in_flight or (sent and self._to_be_decided):
                        await self._take_in(sent.popleft())
                    sent.append(await self._send(window))
                pulled = await self._pull(windows, at_once=at_once)
            while sent:
                await self._take_in(sent.popleft())
        finally:
            for one in sent:  # nobody asks any more what becomes of them
                one.forget()
        if not self._heard:
            raise AudioTooShort(
                f"{counted.samples} samples at {SAMPLE_RATE} Hz; at least {self._geometry.receptive_field} are needed"
            )
        await self._candidates.nothing_said()
        await self._check()
        return await self._answer(counted.samples / SAMPLE_RATE)

    async def _pull(self, windows: Iterator[Window], *, at_once: bool) -> list[Window]:
        """The next ones, as many as may be in flight; fewer at the end."""
        if self._ended:
            return []
        following = islice(windows, self._in_flight)
        pulled = list(following) if at_once else await self._pulled(following)
        self._ended = len(pulled) < self._in_flight
        return pulled

    async def _pulled(self, following: Iterator[Window]) -> list[Window]:
        """In a thread of its own: who is cancelled waits for no decoder, and others wait for none that hangs."""
        return await asyncio.get_running_loop().run_in_executor(self._pulls, list, following)

    async def _tell_language(self, windows: Iterator[Window], pulled: list[Window], *, at_once: bool) -> None:
        """By the longest window of those that follow, ``pulled`` ones and others that are added to them, if anything is
        said there."""
        while True:
            seconds = [window.samples.size / SAMPLE_RATE for window in pulled if not window.silent]
            enough = not seconds or max(seconds) >= _LONG_ENOUGH_S or sum(seconds) >= _ENOUGH_S
            if enough or self._ended or len(pulled) >= _MOST_AHEAD:
                break
            pulled += await self._pull(windows, at_once=at_once)
        if seconds:
            longest = max((window for window in pulled if not window.silent), key=lambda window: window.samples.size)
            self._listened = longest, await self._candidates.listen(longest)
            await self._check()

    async def _check(self) -> None:
        """Raises what decoding would at the end, where it would for each of those that are left."""
        left = self._candidates.left
        names = [candidate.adapter.name for candidate in left]
        if not self._decoding.beam or names == self._checked:
            return
        self._checked = names
        raised: list[TonguesError] = []
        for candidate in left:
            try:
                await self._searches.run(partial(self._decoding.check, candidate.loaded))
            except TonguesError as error:
                raised.append(error)
        if raised and len(raised) == len(left):
            raise raised[0]

    @property
    def _to_be_decided(self) -> bool:
        """What decides is on its way: no further window is heard in every candidate."""
        return len(self._candidates.left) > 1 and decides(self._loud, self._loud_frames)

    async def _send(self, window: Window) -> _Sent:
        if window.silent:
            return _Sent(window.keep, [], None)
        self._loud += 1
        self._loud_frames += window.keep
        begun = None
        if self._listened is not None and self._listened[0] is window:
            begun, self._listened = self._listened[1], None
        adapters = [candidate.adapter for candidate in self._candidates.left]
        return _Sent(window.keep, [a.name for a in adapters], self._hands.hear(window, adapters, begun))

    async def _take_in(self, sent: _Sent) -> None:
        heard = _Heard(sent.frames, {})
        if sent.paths is not None:
            heard.paths.update(zip(sent.names, await sent.paths, strict=True))
            self._candidates.take_in(sent.frames, heard.paths)
        self._heard.append(heard)

    async def _answer(self, duration_s: float) -> Answer:
        ranked = self._candidates.ranked()
        best = self._candidates.best
        vocab, name = best.loaded.vocab, best.adapter.name
        path = BestPath.join(h.paths.get(name) or BestPath.pause(h.frames, vocab) for h in self._heard)
        given = {"frame_s": self._geometry.hop / SAMPLE_RATE, "duration_s": duration_s}
        if self._decoding.beam:
            transcript = Transcript.of(
                await self._searched(self._decoding.parts(path, best.loaded, **given)), duration_s
            )
        elif len(path) <= _DECODED_AT_ONCE:
            transcript = self._decoding(path, best.loaded, **given)
        else:
            transcript = await asyncio.to_thread(self._decoding, path, best.loaded, **given)
        return Answer(transcript, best.adapter, ranked)

    async def _searched(self, parts: Iterator[Sequence[Word]]) -> list[Word]:
        words: list[Word] = []
        while (part := await self._searches.run(partial(next, parts, None))) is not None:
            words.extend(part)
        return words


def _at_once(audio: Iterable[np.ndarray]) -> bool:
    """Nothing has to be waited for, and it is soon cut."""
    return isinstance(audio, list) and sum(block.size for block in audio) <= _CUT_AT_ONCE_S * SAMPLE_RATE


class _Counted:
    """Blocks as they come, counting samples."""

    def __init__(self, blocks: Iterable[np.ndarray]) -> None:
        self._blocks = blocks
        self.samples = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self._blocks:
            self.samples += block.size
            yield block
