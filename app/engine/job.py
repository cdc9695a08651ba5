"""One window of one request on its way through the engine: plain data, with the time of every stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from adapters.windows import Window

if TYPE_CHECKING:
    from adapters.encoder import Frames
    from adapters.registry import RegisteredAdapter

Stage = Literal["queued", "batched", "started", "finished"]
Part = Literal["whole", "trunk", "top"]


class Worn(NamedTuple):
    """The version of an adapter that a job is bound to, for all of its request's windows. A tuple, since the books look
    it up dozens of times a request."""

    name: str
    version: str


def worn_of(adapter: RegisteredAdapter) -> Worn:
    """What jobs bound to this version of the adapter carry."""
    return Worn(adapter.name, adapter.version)


@dataclass
class Job:
    """A window to transcribe in one adapter, or in several side by side.

    ``worn`` and ``languages`` are those of each candidate. ``frames`` is the window's length, context included.
    ``emissions``: the probabilities of all tokens are wanted. ``part``: of the forward; a trunk wears nothing, and a
    top goes on from what its trunk made, ``begun``. ``long``: it is one of several windows of its recording.
    ``times_s`` holds the clock's reading at each stage reached so far.
    """

    id: int
    request_id: str
    worn: tuple[Worn, ...]
    languages: tuple[str, ...]
    window: Window
    frames: int
    long: bool = False
    emissions: bool = False
    part: Part = "whole"
    begun: Frames | None = None
    times_s: dict[Stage, float] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows that it takes in a batch."""
        return max(1, len(self.worn))

    @property
    def size(self) -> int:
        """Frames of all its rows."""
        return self.rows * self.frames


@dataclass(frozen=True)
class Batch:
    """Jobs for one forward, or for the same part of one. A job has a row for each of its candidates, one after the
    other."""

    jobs: tuple[Job, ...]

    @property
    def rows(self) -> int:
        """Rows of the top; below it each job is one."""
        return sum(job.rows for job in self.jobs)

    @property
    def part(self) -> Part:
        """Of the forward."""
        return self.jobs[0].part

    @property
    def padded_frames(self) -> int:
        """Every row as long as the longest; a device that knows few shapes computes more."""
        return max(job.frames for job in self.jobs) * self.rows

    @property
    def worn(self) -> frozenset[Worn]:
        """The adapters that it needs."""
        return frozenset(worn for job in self.jobs for worn in job.worn)

    @property
    def long(self) -> bool:
        """Whether a window of a long recording is among them."""
        return any(job.long for job in self.jobs)

    @property
    def languages(self) -> tuple[str, ...]:
        """The language of each row."""
        return tuple(language for job in self.jobs for language in job.languages)
