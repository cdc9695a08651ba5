"""The service's side of a process that decodes: questions and their answers, and what is made of its end."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import struct
import subprocess
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np

from adapters.errors import NoDecoder
from app.audio.process import MOST_CPU_S
from app.audio.source import Samples
from app.audio.wire import Answer, receive, send
from app.metrics import DECODERS_LOST

_ENDS_WITHIN_S = 0.5  # once the channel has ended
_log = logging.getLogger("tongues")


class DecoderLost(Exception):
    """The process has ended; ``in_work``: while it did what is asked here, rather than before; ``never_up``: why it
    could never be asked."""

    def __init__(self, *, in_work: bool, never_up: NoDecoder | None = None) -> None:
        super().__init__("a process that decodes has ended")
        self.in_work, self.never_up = in_work, never_up


class Told(NamedTuple):
    """An answer, and the samples that came with it."""

    answer: Answer
    samples: Samples


class _Question(NamedTuple):
    number: int
    told: Future[Told]


class DecodingProcess:
    """One process (process.py) and the channel to it, on which questions are answered in their order.

    It is ended where it answers what was not asked, and where a question is not answered within ``silent_s`` to twice
    that, counted from the answer to the one before: it waits for what does not come, or was stopped.
    """

    def __init__(self, command: Sequence[str], silent_s: float) -> None:
        self.lost = False
        self.recordings = 0
        self._silent_s = silent_s
        self._ready = Future[None]()
        self._books, self._sending = threading.Lock(), threading.Lock()
        self._asked: deque[_Question] = deque()
        self._since = time.monotonic()  # it works at the oldest of them since then, or at coming up
        self._channel, theirs = socket.socketpair()
        longest = struct.pack("@ll", int(silent_s), int(silent_s % 1 * 1e6))
        for waits in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._channel.setsockopt(socket.SOL_SOCKET, waits, longest)
        with theirs:
            called = [*command, str(theirs.fileno())]
            try:
                self._process = subprocess.Popen(called, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
            except OSError:
                self._channel.close()
                raise
        threading.Thread(target=self._read, name="decoder", daemon=True).start()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def waiting(self) -> int:
        """Questions without an answer yet."""
        return len(self._asked)

    def wait_ready(self) -> None:
        """Until it can be asked. Raises :class:`~adapters.errors.NoDecoder` where it never can, and
        :class:`DecoderLost` where it was ended before."""
        self._ready.result()

    def ask(self, number: int, fields: dict[str, Any], content: bytes = b"", file: int = -1) -> Told:
        """Its answer about recording ``number``. Raises :class:`DecoderLost`."""
        question = _Question(number, Future())
        with self._sending:
            if self.lost:
                raise DecoderLost(in_work=False)
            if not self._asked:
                self._since = time.monotonic()
            self._asked.append(question)
            try:
                send(self._channel, {**fields, "number": number}, content, file)
            except (ConnectionError, BlockingIOError):  # it has ended, or takes nothing: _read sees to that
                self._end_channel()
            except OSError as error:  # what it made of half a question would be the answer to the next one
                _log.warning("a process that decodes audio cannot be asked: %s", error)
                self.end()
                raise DecoderLost(in_work=True) from error
        return question.told.result()

    def holds(self, more: int) -> None:
        """So many recordings more than before."""
        with self._books:
            self.recordings += more

    def end(self) -> None:
        """Whatever it does; who waits is told :class:`DecoderLost`."""
        self.lost = True
        self._end_channel()

    def _end_channel(self) -> None:
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        """Hand out its answers until there are no more, and see to its end."""
        try:
            self._hand_out()
        except (EOFError, OSError):
            pass
        except Exception:  # it has lost its mind, or a hostile file has taken it over
            _log.exception("a process that decodes audio answers what was not asked")
        self._end_channel()  # whoever is sending it something lets go
        with self._sending:
            meant, self.lost = self.lost, True
            self._channel.close()
        why = self._ended()
        if not (meant or self._ready.done()):
            _log.error("a process that decodes audio does not start: %s", why)
            error = NoDecoder(f"a process that decodes audio does not start: {why}")
            self._ready.set_exception(error)
        elif not meant:
            _log.warning("a process that decodes audio was lost: %s", why)
            DECODERS_LOST.inc()
        elif not self._ready.done():
            self._ready.set_exception(DecoderLost(in_work=False))
        failed = self._ready.exception()
        never_up = failed if isinstance(failed, NoDecoder) else None
        for place, question in enumerate(self._asked):
            in_work = place == 0 and not (meant or failed)
            question.told.set_exception(DecoderLost(in_work=in_work, never_up=never_up))
        self._asked.clear()

    def _hand_out(self) -> None:
        ready = False
        while True:
            try:
                message = receive(self._channel)
            except BlockingIOError:  # nothing for silent_s
                if (self._asked or not ready) and time.monotonic() >= self._since + self._silent_s:
                    _log.warning("a process that decodes audio did not answer within %g s", self._silent_s)
                    return
                continue
            if not ready:
                ready = True
                self._ready.set_result(None)
                continue
            answer, samples = Answer.of(message.fields), np.frombuffer(message.content, np.float32)
            if answer.number != self._asked[0].number:
                raise ValueError(f"it answers about {answer.number}, asked about {self._asked[0].number}")
            question = self._asked.popleft()
            self._since = time.monotonic()
            question.told.set_result(Told(answer, samples))

    def _ended(self) -> str:
        """Why the process has ended, which it has from here on."""
        try:
            status = self._process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        if status >= 0:
            return f"exit status {status}"
        if -status == signal.SIGPROF:
            return f"a second of sound took it more than {MOST_CPU_S:g} s"
        try:
            return f"{signal.Signals(-status).name}, {signal.strsignal(-status)}"
        except ValueError:  # one without a name
            return f"signal {-status}"
