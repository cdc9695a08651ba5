"""Recordings that are decoded in processes of their own.

FFmpeg lets go of Python's lock for every packet of 20 ms and has to wait for it again; decoding in the process of the
service, threads spent more time on that than on audio (over HTTP, on two cores, 86 requests a second where this gives
137). And a file that makes FFmpeg fail, hang or take all memory is in nobody's way for long: its process is lost,
another takes its place, the other recordings go on there. So is one that says nothing for a minute or two.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from adapters.errors import Draining, NoDecoder
from app.audio.child import DecoderLost, DecodingProcess
from app.audio.recording import Recording

_SILENT_S = 60.0  # a second of sound takes a few milliseconds; where it takes seconds, process.MOST_CPU_S ends it
_OURS = str(Path(__file__).parents[2])
_COMMAND = (  # the code that runs here, whatever `app` lies in the folder from which the service was started
    *(sys.executable, "-P", "-c"),
    f"import sys; sys.path.insert(0, {_OURS!r}); from app.audio.process import main; main()",
)


class Decoders:
    """``count`` processes, started when they are first needed, or by :meth:`start`. All of it from any thread.

    ``command``: what they run, to which the number of their socket is added. ``silent_s``: see
    :class:`~app.audio.child.DecodingProcess`.
    """

    def __init__(self, count: int, command: Sequence[str] = _COMMAND, *, silent_s: float = _SILENT_S) -> None:
        self._books = threading.Lock()
        self._count, self._command, self._silent_s = count, command, silent_s
        self._processes: list[DecodingProcess] = []
        self._closed = False

    def start(self) -> None:
        """Start those that are not there; returns before they are ready. Raises as :meth:`open` does."""
        with self._books:
            self._fill()

    def wait_ready(self) -> None:
        """Until those that were started can decode. Raises :class:`~adapters.errors.NoDecoder` where one never
        can."""
        with self._books:
            started = list(self._processes)
        for process in started:
            with contextlib.suppress(DecoderLost):  # another takes its place
                process.wait_ready()

    def open(self, file: BinaryIO, *, max_audio_s: float) -> Recording:
        """Decodes the first seconds, and waits for that: what is no audio is refused before it costs compute.

        Raises :class:`~adapters.errors.AudioError` of every kind, as :class:`~app.audio.source.AudioSource` does,
        :class:`~adapters.errors.Draining` once closed, and :class:`~adapters.errors.NoDecoder` where no process can
        be started. ``file`` stays the caller's, who leaves it alone until the recording is closed.
        """
        return Recording(self.least_busy, file, max_audio_s)

    def close(self) -> None:
        """End them all, whatever they do."""
        with self._books:
            self._closed = True
            ended, self._processes = self._processes, []
        for process in ended:
            process.end()

    def least_busy(self) -> DecodingProcess:
        """The one with the fewest that wait for it, and of those the one with the fewest recordings."""
        with self._books:
            if self._closed:
                raise Draining("shutting down: ask again, another one will answer")
            self._fill()
            return min(self._processes, key=lambda process: (process.waiting, process.recordings))

    def _fill(self) -> None:
        self._processes = [process for process in self._processes if not process.lost]
        while not self._closed and len(self._processes) < self._count:
            try:
                self._processes.append(DecodingProcess(self._command, self._silent_s))
            except OSError as error:
                if self._processes:  # fewer do as well, for a while
                    return
                raise NoDecoder(f"a process that decodes audio cannot be started: {error}") from error
