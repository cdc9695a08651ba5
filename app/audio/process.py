"""A process that decodes, which pool.py starts: :func:`main`, told the descriptor of its socket.

It holds many recordings open and does what it is asked one thing after another, a few seconds of audio each time, so
that no recording waits for another's end. A hostile file that takes too long, or all memory, ends this process and not
the service; so does a fault in FFmpeg. It ends by itself when the service does.
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from adapters.errors import AudioError, BrokenAudio
from app.audio.source import SAMPLE_RATE, AudioSource, Samples
from app.audio.wire import Message, receive, send

AT_ONCE_SAMPLES = 8 * SAMPLE_RATE
"""What one answer holds, or all that is left: short clips are decoded by one question."""
MOST_CPU_S = 10.0
"""For a second of audio, which takes a millisecond or two."""
MOST_BYTES = 512 << 20
"""More than it had, while it opens a file or decodes a second of it."""

_STATM = Path("/proc/self/statm")


@dataclass(frozen=True)
class _Opened:
    source: AudioSource
    file: BinaryIO

    def close(self) -> None:
        self.source.close()
        self.file.close()


class Decoder:
    """The recordings of one process, by their numbers.

    ``open``: a recording, whose first ``skip`` samples are not wanted; ``next``: what follows; ``close``: nothing more.
    The first two answer with samples and ``duration_s``, ``truncated``, ``ended`` and perhaps ``error``, which comes
    behind these samples. What has ended is closed.
    """

    def __init__(self) -> None:
        self._opened: dict[int, _Opened] = {}

    def answer(self, asked: Message) -> tuple[dict[str, Any], bytes]:
        """Raises nothing: errors are answers."""
        number, blocks = asked.fields["number"], list[Samples]()
        ended, error = False, None
        try:
            if asked.fields["do"] == "close":
                self._forget(number)
                return {}, b""
            if asked.fields["do"] == "open":
                self._open(number, asked)
            ended = self._take(number, blocks)
        except AudioError as refusal:
            error = [type(refusal).__name__, str(refusal)]
        except MemoryError:
            error = [BrokenAudio.__name__, f"decoding it takes more than {MOST_BYTES >> 20} MiB: encode it anew"]
        except Exception:
            error = ["", traceback.format_exc()]
        opened = self._opened.get(number)
        told: dict[str, Any] = {"ended": ended, "error": error}
        if opened is not None:
            told |= {"duration_s": opened.source.duration_s, "truncated": opened.source.truncated}
        if ended or error:
            self._forget(number)
        return told, b"".join(block.tobytes() for block in blocks)

    def _open(self, number: int, asked: Message) -> None:
        file = io.BytesIO(asked.content) if asked.file is None else os.fdopen(asked.file, "rb")
        try:
            with bounded():
                source = AudioSource(file, max_audio_s=asked.fields["max_audio_s"])
        except BaseException:
            file.close()
            raise
        self._opened[number] = _Opened(source, file)
        skip = asked.fields["skip"]
        while skip > 0:  # blocks come as they came the first time
            with bounded():
                block = next(source, None)
            if block is None:
                break
            skip -= block.size

    def _take(self, number: int, blocks: list[Samples]) -> bool:
        """The next blocks, onto ``blocks``; whether there are no more."""
        source, count = self._opened[number].source, 0
        while count < AT_ONCE_SAMPLES:
            with bounded():
                block = next(source, None)
            if block is None:
                return True
            blocks.append(block)
            count += block.size
        return False

    def _forget(self, number: int) -> None:
        opened = self._opened.pop(number, None)
        if opened is not None:
            opened.close()


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Beyond ``MOST_CPU_S`` the process is killed; memory beyond ``MOST_BYTES`` is not to be had, on Linux."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = _bytes_taken() + MOST_BYTES
    signal.setitimer(signal.ITIMER_PROF, MOST_CPU_S)  # SIGPROF, at which a process ends
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _bytes_taken() -> int:
    try:
        return int(_STATM.read_bytes().split()[0]) * resource.getpagesize()
    except OSError:
        return 1 << 40


def main() -> None:
    """Answer until there is nobody left to ask."""
    for told in (signal.SIGINT, signal.SIGTERM):  # meant for the service, which may have recordings to finish
        signal.signal(told, signal.SIG_IGN)
    channel, decoder = socket.socket(fileno=int(sys.argv[1])), Decoder()
    with contextlib.suppress(EOFError, OSError):
        send(channel, {"ready": True})
        while True:
            send(channel, *decoder.answer(receive(channel)))
