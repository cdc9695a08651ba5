"""A process that decodes, which pool.py starts: :func:`main`, told the descriptor of its socket.

It holds many recordings open and does what it is asked one thing after another, a few seconds of audio or a part of a
second each time, so that no recording waits for another's end. A hostile file that takes too long, or all memory, ends
this process and not the service; so does a fault in FFmpeg. It ends by itself when the service does.
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from adapters.errors import AudioError, BrokenAudio
from app.audio.source import SAMPLE_RATE, AudioSource, Samples
from app.audio.wire import Answer, Message, receive, send

AT_ONCE_SAMPLES = 8 * SAMPLE_RATE
"""What one answer holds, or all that is left: short clips are decoded by one question."""
AT_ONCE_S = 0.25
"""After so long an answer is what there is by then."""
MOST_CPU_S = 10.0
"""For a second of audio, which takes a millisecond or two."""
MOST_BYTES = 512 << 20
"""More than it had, while it opens a file or decodes a second of it."""

_STATM = Path("/proc/self/statm")


@dataclass
class _Opened:
    source: AudioSource
    file: BinaryIO
    skip: int  # samples that were heard before

    def close(self) -> None:
        self.source.close()
        self.file.close()


class Decoder:
    """The recordings of one process, by their numbers.

    ``open``: a recording, whose first ``skip`` samples are not wanted; ``next``: what follows; ``close``: nothing more.
    What has ended is closed.
    """

    def __init__(self) -> None:
        self._opened: dict[int, _Opened] = {}

    def answer(self, asked: Message) -> tuple[Answer, bytes]:
        """With samples behind it, except where all of them were heard before. Raises nothing: errors are answers."""
        number, blocks = asked.fields["number"], list[Samples]()
        ended, error = False, None
        try:
            if asked.fields["do"] == "close":
                self._forget(number)
                return Answer(number), b""
            if asked.fields["do"] == "open":
                self._open(number, asked)
            ended = self._take(self._opened[number], blocks)
        except AudioError as refusal:
            error = type(refusal).__name__, str(refusal)
        except MemoryError:
            error = BrokenAudio.__name__, f"decoding it takes more than {MOST_BYTES >> 20} MiB: encode it anew"
        except Exception:
            error = "", traceback.format_exc()
        told = Answer(number, ended, error)
        if (opened := self._opened.get(number)) is not None:
            told = replace(told, duration_s=opened.source.duration_s, truncated=opened.source.truncated)
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
        self._opened[number] = _Opened(source, file, asked.fields["skip"])

    def _take(self, opened: _Opened, blocks: list[Samples]) -> bool:
        """The next blocks, onto ``blocks``; whether there are no more."""
        count, enough_at = 0, time.monotonic() + AT_ONCE_S
        while True:
            with bounded():
                block = next(opened.source, None)
            if block is None:
                return True
            if opened.skip > 0:  # blocks come as they came the first time
                opened.skip -= block.size
            else:
                blocks.append(block)
                count += block.size
            if count >= AT_ONCE_SAMPLES or time.monotonic() >= enough_at:
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
            answer, content = decoder.answer(receive(channel, files=True))
            send(channel, answer.fields, content)
