"""A lock that is handed to whoever has waited the longest.

Decoding audio is thousands of short calls into FFmpeg, each of which lets go of Python's lock and must get it back.
Many threads that do so at once spend more time on that than on audio: with 64 clients over HTTP nearly half. So one
decodes at a time, a second of audio, and then the next.
"""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class OneAtATime:
    """For ``with``; not to be entered again from within."""

    def __init__(self) -> None:
        self._books = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._books:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()  # until it is handed over

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._books:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False
