"""What a device runs, in which order: streams of operations, events in them, and who may touch a slot when.

A device runs what it is given later, each stream in its own order and no two streams in any order but what events ask
for. Batches run in one stream, seats are written in another, beside them. Two things must hold, and the host waits for
neither: a batch reads a slot only after it was written, and a slot is written again only after the last batch that read
it. A CPU runs everything at once, so that both are so anyway.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch


class Event(Protocol):
    """A point in a stream. ``torch.cuda.Event`` is one."""

    def query(self) -> bool:
        """Whether the device has passed it."""

    def synchronize(self) -> None:
        """Wait, on the host, until it has."""

    def elapsed_time(self, end_event: Any) -> float:
        """Milliseconds from here to ``end_event``; both have been passed."""


class Stream(Protocol):
    """Operations that a device runs one after the other."""

    def run(self, operation: Callable[[], object]) -> None:
        """Give it what ``operation`` starts."""

    def record(self) -> Event:
        """The point behind all that it was given so far."""

    def wait(self, event: Event) -> None:
        """Whatever it is given from now on runs after ``event``. The host goes on."""


@dataclass(frozen=True)
class _Moment:
    at_s: float = field(default_factory=time.perf_counter)

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        """It has been passed."""

    def elapsed_time(self, end_event: _Moment) -> float:
        return (end_event.at_s - self.at_s) * 1e3


class HostStream:
    """A CPU: what it is given has run when the call returns."""

    def run(self, operation: Callable[[], object]) -> None:
        operation()

    def record(self) -> _Moment:
        return _Moment()

    def wait(self, event: Event) -> None:
        """Nothing is ever behind."""


class CudaStream:
    """A stream of a GPU. What threads do outside of :meth:`run` goes to the device's default stream."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream

    def run(self, operation: Callable[[], object]) -> None:
        with torch.cuda.stream(self._stream):
            operation()

    def record(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True, blocking=True)  # type: ignore[no-untyped-call]  # who waits sleeps
        event.record(self._stream)
        return event

    def wait(self, event: Event) -> None:
        assert isinstance(event, torch.cuda.Event)
        self._stream.wait_event(event)


class Turns:
    """Slots, by any name: written in the stream ``seating``, read by what the stream ``compute`` is given."""

    def __init__(self, compute: Stream, seating: Stream) -> None:
        self.compute, self.seating = compute, seating
        self._written: dict[Hashable, Event] = {}
        self._read: dict[Hashable, Event] = {}
        self._lock = threading.Lock()

    @classmethod
    def on(cls, device: torch.device) -> Turns:
        """Of a device: a GPU's default stream and one beside it."""
        if device.type != "cuda":
            return cls(HostStream(), HostStream())
        beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        return cls(CudaStream(torch.cuda.default_stream(device)), CudaStream(beside))

    def write(self, slot: Hashable, operation: Callable[[], object]) -> None:
        """Run ``operation``, which fills a slot that no batch reads any more, once the device is done with those that
        did."""
        with self._lock:
            read = self._read.pop(slot, None)
        if read is not None:
            self.seating.wait(read)
        self.seating.run(operation)
        with self._lock:
            self._written[slot] = self.seating.record()

    def ready(self, slots: Collection[Hashable]) -> None:
        """What ``compute`` is given from now on finds these slots written."""
        with self._lock:
            events = {id(event): event for event in map(self._written.get, slots) if event is not None}
        for event in events.values():
            if not event.query():
                self.compute.wait(event)

    @contextlib.contextmanager
    def reading(self, slots: Collection[Hashable]) -> Iterator[None]:
        """What ``compute`` is given in here reads these slots."""
        try:
            yield
        finally:  # also where it was given half of a batch
            done = self.compute.record()
            with self._lock:
                self._read.update(dict.fromkeys(slots, done))
