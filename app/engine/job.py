"""One window of one request on its way through the engine: plain data, with the time of every stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from adapters.windows import Window

Stage = Literal["queued", "batched", "started", "finished"]


@dataclass(frozen=True, order=True)
class Worn:
    """The version of an adapter that a job is bound to, for all of its request's windows."""

    name: str
    version: str


@dataclass
class Job:
    """A window to transcribe.

    ``frames`` is what it costs: the frames of the window, context included. ``long``: it is one of several windows of
    its recording. ``times_s`` holds the clock's reading at each stage reached so far.
    """

    id: int
    request_id: str
    worn: Worn
    language: str
    window: Window
    frames: int
    long: bool = False
    times_s: dict[Stage, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Jobs for one forward, in the order of its rows."""

    jobs: tuple[Job, ...]

    @property
    def padded_frames(self) -> int:
        """What the forward costs: every row is as long as the longest."""
        return max(job.frames for job in self.jobs) * len(self.jobs)

    @property
    def long(self) -> bool:
        """Whether a window of a long recording is among them."""
        return any(job.long for job in self.jobs)

    @property
    def languages(self) -> tuple[str, ...]:
        """The language of each row."""
        return tuple(job.language for job in self.jobs)
