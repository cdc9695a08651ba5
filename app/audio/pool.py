"""Recordings that are decoded in processes of their own.

FFmpeg lets go of Python's lock for every packet of 20 ms and has to wait for it again; decoding in the process of the
service, threads spent more time on that than on audio (over HTTP, on two cores, 86 requests a second where this gives
137). And a file that makes FFmpeg fail, hang or take all memory is in nobody's way for long: its process is lost,
another takes its place, the other recordings go on there.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

import adapters.errors
from adapters.errors import AudioError, BrokenAudio, Draining, EngineError
from app.audio.process import MOST_CPU_S
from app.audio.source import BLOCK_SAMPLES, Samples
from app.audio.wire import Message, receive, send
from app.metrics import DECODERS_LOST

_ENDS_WITHIN_S = 0.5  # once the channel has ended
_SENT_BYTES = 1 << 20  # files up to it go by the channel, larger ones by their descriptor
_log = logging.getLogger("tongues")


class DecoderLost(Exception):
    """The process has ended; ``in_work``: while it did what is asked here, rather than before."""

    def __init__(self, *, in_work: bool) -> None:
        super().__init__("a process that decodes has ended")
        self.in_work = in_work


class Decoders:
    """``count`` processes, started when they are first needed, or by :meth:`start`. All of it from any thread.

    ``command``: what they run, to which the number of their socket is added.
    """

    def __init__(self, count: int, command: Sequence[str] = (sys.executable, "-m", "app.audio.process")) -> None:
        self._books = threading.Lock()
        self._count, self._command = count, command
        self._processes: list[DecodingProcess] = []
        self._closed = False

    def start(self) -> None:
        """Start those that are not there; returns before they are ready."""
        with self._books:
            self._fill()

    def open(self, file: BinaryIO, *, max_audio_s: float) -> Recording:
        """Decodes the first seconds, and waits for that: what is no audio is refused before it costs compute.

        Raises :class:`~adapters.errors.AudioError` of every kind, as :class:`~app.audio.source.AudioSource` does,
        :class:`~adapters.errors.Draining` once closed, and :class:`~adapters.errors.EngineError` where no process can
        be started. ``file`` stays the caller's, who leaves it alone until the recording is closed.
        """
        return Recording(self, file, max_audio_s)

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
            self._processes.append(DecodingProcess(self._command))


class DecodingProcess:
    """One process (process.py) and the channel to it, on which questions are answered in their order."""

    def __init__(self, command: Sequence[str]) -> None:
        self.lost = False
        self.recordings = 0
        self._ready = False
        self._books, self._sending = threading.Lock(), threading.Lock()
        self._asked: deque[Future[Message]] = deque()
        self._channel, theirs = socket.socketpair()
        with theirs:
            called = [*command, str(theirs.fileno())]
            self._process = subprocess.Popen(called, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        threading.Thread(target=self._read, name="decoder", daemon=True).start()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def waiting(self) -> int:
        """Questions without an answer yet."""
        return len(self._asked)

    def ask(self, fields: dict[str, Any], content: bytes = b"", file: int = -1) -> Message:
        """Its answer. Raises :class:`DecoderLost`, and :class:`~adapters.errors.EngineError` where it never came up."""
        answer = Future[Message]()
        with self._sending:
            if self.lost:
                raise DecoderLost(in_work=False)
            self._asked.append(answer)
            with contextlib.suppress(OSError):  # whose end the reader sees
                send(self._channel, fields, content, file)
        return answer.result()

    def holds(self, more: int) -> None:
        """So many recordings more than before."""
        with self._books:
            self.recordings += more

    def end(self) -> None:
        """Whatever it does; who waits is told :class:`DecoderLost`."""
        self.lost = True
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        """Hand out its answers until there are no more, and see to its end."""
        try:
            receive(self._channel)
            self._ready = True
            while True:
                answered = receive(self._channel)
                self._asked.popleft().set_result(answered)
        except (EOFError, OSError):
            pass
        except (ValueError, LookupError):  # it has lost its mind, or a hostile file has taken it over
            _log.exception("a process that decodes audio answers what was not asked")
        with self._sending:
            meant, self.lost = self.lost, True
            self._channel.close()
        try:
            status = self._process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        if not (meant or self._ready):
            _log.error("a process that decodes audio does not start: %s", _why(status))
        elif not meant:
            _log.warning("a process that decodes audio was lost: %s", _why(status))
            DECODERS_LOST.inc()
        in_work = not meant
        for answer in self._asked:
            if self._ready or meant:
                answer.set_exception(DecoderLost(in_work=in_work))
            else:
                answer.set_exception(EngineError(f"a process that decodes audio does not start: {_why(status)}"))
            in_work = False
        self._asked.clear()


class Recording:
    """A recording that is being decoded: iterate over it for blocks of one second, the last one shorter.

    Like :class:`~app.audio.source.AudioSource`, and raises the same. Blocks may be asked for in one thread and the
    recording closed in another: closing waits for the block in work.
    """

    def __init__(self, decoders: Decoders, file: BinaryIO, max_audio_s: float) -> None:
        self.truncated = False  #: it broke off, or lost parts on the way; final after the last block
        self.duration_s = 0.0  #: how much was decoded so far
        self._decoders, self._file, self._max_audio_s = decoders, file, max_audio_s
        self._lock = threading.Lock()
        self._number = next(_NUMBERS)
        self._process: DecodingProcess | None = None
        self._received = 0  # samples
        self._held: Samples = np.zeros(0, np.float32)
        self._ended = False
        self._error: BaseException | None = None
        self._fetch()
        if self._error is not None and not self._held.size:
            raise self._error

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Samples:
        with self._lock:
            if not self._held.size and not self._ended:
                self._fetch()
            if self._held.size:
                block, self._held = self._held[:BLOCK_SAMPLES], self._held[BLOCK_SAMPLES:]
                return block
            if self._error is not None:
                raise self._error
            raise StopIteration

    def close(self) -> None:
        """There are no further blocks."""
        with self._lock:
            self._held, self._error = self._held[:0], None
            if self._ended:
                return
            self._ended = True
            process, self._process = self._process, None
            if process is not None and not process.lost:
                process.holds(-1)
                try:
                    process.ask({"do": "close", "number": self._number})
                except (DecoderLost, EngineError):
                    return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _fetch(self) -> None:
        """The next seconds; in another process where the one that had it is lost."""
        lost = 0
        while True:
            try:
                told, content, _ = self._asked()
                break
            except DecoderLost as error:
                self._process = None
                lost += error.in_work
                if lost > 1:
                    self._ended = True
                    self._error = BrokenAudio(
                        f"what decodes audio ended over it, twice: by a fault, or after more than {MOST_CPU_S:g} s for "
                        "a second of sound; encode it anew"
                    )
                    return
        self._held = np.frombuffer(content, np.float32)
        self._received += self._held.size
        self._ended = told["ended"] or told["error"] is not None
        self.duration_s, self.truncated = told.get("duration_s", 0.0), told.get("truncated", False)
        if told["error"] is not None:
            self._error = _error(*told["error"])
        if self._ended and self._process is not None:
            self._process.holds(-1)
            self._process = None

    def _asked(self) -> Message:
        if self._process is not None:
            return self._process.ask({"do": "next", "number": self._number})
        asked = {"do": "open", "number": self._number, "skip": self._received, "max_audio_s": self._max_audio_s}
        process = self._decoders.least_busy()
        if (file := _descriptor(self._file)) is not None:
            told = process.ask(asked, file=file)
        else:
            self._file.seek(0)
            told = process.ask(asked, self._file.read())
        process.holds(1)
        self._process = process
        return told


_NUMBERS = itertools.count()


def _descriptor(file: BinaryIO) -> int | None:
    """Of a large file that has one."""
    if file.seek(0, io.SEEK_END) <= _SENT_BYTES:
        return None
    with contextlib.suppress(io.UnsupportedOperation):
        return file.fileno()
    return None


def _error(kind: str, message: str) -> Exception:
    found = getattr(adapters.errors, kind, None) if kind else None
    if isinstance(found, type) and issubclass(found, AudioError):
        return found(message)
    return RuntimeError(f"decoding audio failed:\n{message}")


def _why(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    killed = signal.Signals(-status)
    if killed == signal.SIGPROF:
        return f"a second of sound took it more than {MOST_CPU_S:g} s"
    return f"{killed.name}, {signal.strsignal(killed)}"
