"""Downloads out of a hub: told of in the log, tried again where the connection broke, given up when that is asked for.

What has come of weights stays after any failure, and is gone on with (adapters/ranged.py). Small files are fetched by
huggingface_hub itself, which begins them anew after most failures; files that have come whole stay.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from threading import Event, Lock
from typing import Any, TypeVar

from huggingface_hub.utils.tqdm import tqdm

from adapters.errors import HubError
from adapters.reason import reason
from adapters.refusal import passing

log = logging.getLogger("tongues.hub")

T = TypeVar("T")
TRIES = 7  # over a minute
_FIRST_WAIT_S = 1.0
_SHARE = 0.1
_SILENT_S = 10.0


def download(fetch: Callable[[Progress], T], missing_bytes: Callable[[], int], stop: Event, *, tries: int = TRIES) -> T:
    """What ``fetch`` returns, which tells a :class:`Progress` what comes. ``missing_bytes``: what is to come. It is
    tried until nothing more came to stay ``tries`` times in a row; 1: once.

    Raises what it raised last, and :class:`~adapters.errors.HubError` once ``stop`` is set."""
    in_vain, least_bytes = 0, missing_bytes()
    while True:
        try:
            return fetch(Progress(missing_bytes(), stop))
        except Exception as error:
            in_vain += 1
            if (missing := missing_bytes()) < least_bytes:
                in_vain, least_bytes = 0, missing
            if tries in (1, in_vain) or not passing(error):
                raise
            wait_s = _FIRST_WAIT_S * 2 ** max(in_vain - 1, 0)
            log.warning("the download broke off and is tried again in %g s: %s", wait_s, reason(error))
        if stop.wait(wait_s):
            raise _given_up()


class Progress:
    """How many of ``total_bytes`` have come, in the log: a line for each tenth, after ten seconds at the latest, and
    for the last."""

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
            due = came == self._total_bytes or now >= self._said_at + _SILENT_S
            if came > self._said_bytes and (due or came >= self._said_bytes + _SHARE * self._total_bytes):
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
