"""A recording, decoded elsewhere: its samples as they are asked for, whatever becomes of the process that has it."""

from __future__ import annotations

import contextlib
import io
import itertools
import threading
from collections.abc import Callable
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np

import adapters.errors
from adapters.errors import AudioError, BrokenAudio
from app.audio.child import DecoderLost, DecodingProcess, Told
from app.audio.process import MOST_CPU_S
from app.audio.source import BLOCK_SAMPLES, Samples

_SENT_BYTES = 1 << 20  # files up to it go by the channel, larger ones by their descriptor
_NUMBERS = itertools.count()


class Recording:
    """A recording that is being decoded: iterate over it for blocks of one second, the last one of all that is left.

    Like :class:`~app.audio.source.AudioSource`, and raises the same. Blocks may be asked for in one thread and the
    recording closed in another: closing waits for the block in work. ``process``: one that is to decode it.
    """

    def __init__(self, process: Callable[[], DecodingProcess], file: BinaryIO, max_audio_s: float) -> None:
        self.truncated = False  #: it broke off, or lost parts on the way; final after the last block
        self.duration_s = 0.0  #: how much was decoded so far
        self._another, self._file, self._max_audio_s = process, file, max_audio_s
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
            self._fetch()
            if self._held.size:
                count = self._held.size if self._ended else BLOCK_SAMPLES
                block, self._held = self._held[:count], self._held[count:]
                return block
            if self._error is not None:
                raise self._error
            raise StopIteration

    @property
    def whole(self) -> bool:
        """All that is left is here: neither a block nor closing has to be waited for."""
        return self._ended

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
                    process.ask(self._number, {"do": "close"})
                except DecoderLost:
                    return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _fetch(self) -> None:
        """The next seconds; in another process where the one that had it is lost."""
        lost = tried = 0
        while not (self._held.size or self._ended):
            try:
                self._take(self._asked())
            except DecoderLost as error:
                self._process = None
                tried += error.never_up is not None
                if error.never_up is not None and tried > 1:
                    raise error.never_up from error
                lost += error.in_work
                if lost > 1:
                    self._ended = True
                    self._error = BrokenAudio(
                        "what decodes audio ended over it, twice: by a fault, or after more than "
                        f"{MOST_CPU_S:g} s for a second of sound; encode it anew"
                    )

    def _asked(self) -> Told:
        if self._process is not None:
            return self._process.ask(self._number, {"do": "next"})
        asked = {"do": "open", "skip": self._received, "max_audio_s": self._max_audio_s}
        process = self._another()
        if (file := _descriptor(self._file)) is not None:
            told = process.ask(self._number, asked, file=file)
        else:
            self._file.seek(0)
            told = process.ask(self._number, asked, self._file.read())
        process.holds(1)
        self._process = process
        return told

    def _take(self, told: Told) -> None:
        """There may be no samples in it: of what was heard before, or where decoding takes long."""
        answer, self._held = told
        self._received += self._held.size
        self._ended = answer.ended or answer.error is not None
        self.duration_s, self.truncated = answer.duration_s, answer.truncated
        if answer.error is not None:
            self._error = _error(*answer.error)
        if self._ended and self._process is not None:
            self._process.holds(-1)
            self._process = None


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
