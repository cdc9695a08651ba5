"""Downloads out of a hub: told of in the log, tried again where the connection broke, given up when that is asked for.

huggingface_hub itself goes on with a file where a connection was closed before its end, and deletes what has come of it
after any other failure; files that have come whole stay.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from threading import Event, Lock
from typing import Any, TypeVar

import httpx2
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    XetDownloadError,
)
from huggingface_hub.utils.tqdm import tqdm

from adapters.errors import HubError
from adapters.reason import reason

log = logging.getLogger("tongues.hub")

T = TypeVar("T")
TRIES = 6
_FIRST_WAIT_S = 1.0
_SHARE = 0.1
_SILENT_S = 10.0
_PASSING = (408, 429)


def download(
    fetch: Callable[[type[tqdm]], T], missing_bytes: Callable[[], int], stop: Event, *, tries: int = TRIES
) -> T:
    """What ``fetch`` returns, which is given the progress bars that the client is to use; ``missing_bytes``: what is
    to come. Raises what it raised last, and :class:`~adapters.errors.HubError` once ``stop`` is set."""
    for number in range(tries):
        try:
            return fetch(Progress(missing_bytes(), stop).bars())
        except Exception as error:
            if number == tries - 1 or not _passing(error):
                raise
            wait_s = _FIRST_WAIT_S * 2**number
            log.warning("the download broke off and is tried again in %g s: %s", wait_s, reason(error))
        if stop.wait(wait_s):
            raise _given_up()
    raise AssertionError("the last try returns or raises")


class Progress:
    """How many of ``total_bytes`` have come, in the log: a line for each tenth, and after ten seconds at the latest."""

    def __init__(self, total_bytes: int, stop: Event, clock: Callable[[], float] = time.monotonic) -> None:
        self._total_bytes, self._stop, self._clock = total_bytes, stop, clock
        self._came: Counter[bool] = Counter()
        self._said_bytes, self._said_at = 0, clock()
        self._turn = Lock()

    def came(self, count: int, *, received: bool) -> None:
        """``received`` from the network, or written to a file: a client may count both, of which the larger number
        counts. Raises :class:`~adapters.errors.HubError` once the download is given up."""
        if self._stop.is_set():
            raise _given_up()
        with self._turn:
            self._came[received] += count
            came, now = min(max(self._came.values()), self._total_bytes), self._clock()
            overdue = came > self._said_bytes and now >= self._said_at + _SILENT_S
            if self._total_bytes and (came >= self._said_bytes + _SHARE * self._total_bytes or overdue):
                self._said_bytes, self._said_at = came, now
                log.info("fetched %.1f of %.1f MB", came / 1e6, self._total_bytes / 1e6)

    def bars(self) -> type[tqdm]:
        """The class of the progress bars that a client updates. They show nothing: a bar is of use to a terminal
        alone."""
        progress = self

        class Bar(tqdm):
            def __init__(self, *args: Any, **options: Any) -> None:
                self._counts = options.get("unit") == "B"
                self._received = "ownloading bytes" in str(options.get("desc"))
                super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]

            def update(self, n: float | None = 1) -> bool | None:
                if self._counts and n:
                    progress.came(int(n), received=self._received)
                return None

        return Bar


def _given_up() -> HubError:
    return HubError("the download was given up, for the service stops")


def _passing(error: BaseException | None) -> bool:
    """Whether it may be otherwise in a moment."""
    if isinstance(error, LocalEntryNotFoundError):
        return _passing(error.__cause__)
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500 or error.response.status_code in _PASSING
    if isinstance(error, EntryNotFoundError | FileMetadataError | OfflineModeIsEnabled):
        return False
    if isinstance(error, OSError):  # of the client's own, for a file of another length, say
        return error.errno is None or isinstance(error, ConnectionError | TimeoutError)
    return isinstance(error, httpx2.TransportError | XetDownloadError | RuntimeError)  # the last of hf_xet
