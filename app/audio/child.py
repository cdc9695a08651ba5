"""The service's side of a process that decodes: questions and their answers, and what is made of its end."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from adapters.errors import EngineError
from app.audio.process import MOST_CPU_S
from app.audio.wire import Message, receive, send
from app.metrics import DECODERS_LOST

_ENDS_WITHIN_S = 0.5  # once the channel has ended
_log = logging.getLogger("tongues")


class DecoderLost(Exception):
    """The process has ended; ``in_work``: while it did what is asked here, rather than before."""

    def __init__(self, *, in_work: bool) -> None:
        super().__init__("a process that decodes has ended")
        self.in_work = in_work


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


def _why(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    killed = signal.Signals(-status)
    if killed == signal.SIGPROF:
        return f"a second of sound took it more than {MOST_CPU_S:g} s"
    return f"{killed.name}, {signal.strsignal(killed)}"
