"""Long audio -> windows that a backbone can take, cut at pauses, lazily; and back.

A window is a *core*, which is its own, and up to a second of context on either side, whose frames are computed and
dropped. Long silence is a window of its own, which nobody computes (:mod:`adapters.speech`). Cores begin on multiples
of the backbone's hop, so the kept frames of all windows, one after the other, are the frames of the whole recording,
and CTC collapses them as one. An hour never lies in memory whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from adapters.frontend import SAMPLE_RATE, Geometry
from adapters.speech import SHORTEST_SPEECH_S, SILENCE_DBFS, stretches

_LEVEL_S = 0.03


@dataclass(frozen=True)
class WindowShape:
    """How long windows are. Audio up to ``longest_s`` is one window; longer audio is cut at the quietest tenth of a
    second of the last ``search_s`` of each core. ``context_s`` is added on either side of a cut."""

    longest_s: float = 16.0
    search_s: float = 6.0
    context_s: float = 1.0

    def __post_init__(self) -> None:
        if not 0.1 <= self.search_s <= self.longest_s / 2 or self.context_s < 0.1:
            raise ValueError(
                f"windows of {self.longest_s} s: the search for a pause takes 0.1 s to half of that, "
                f"not {self.search_s} s, and the context 0.1 s or more, not {self.context_s} s"
            )


@dataclass(frozen=True)
class Window:
    """``samples`` (N,) float32, not normalised. Of its frames, ``keep`` from ``skip`` on are its own.

    ``silent``: nothing in it is loud or long enough to be speech; scaled to unit variance, hiss would turn into
    letters. Measured where the window is made, which is in a thread, unless it is known. ``long``: its recording is
    longer than a window.
    """

    index: int
    samples: np.ndarray
    skip: int
    keep: int
    silent: bool | None = None
    long: bool = False

    def __post_init__(self) -> None:
        if self.silent is None:
            short = self.samples.size < SHORTEST_SPEECH_S * SAMPLE_RATE
            object.__setattr__(self, "silent", short or level_dbfs(self.samples) < SILENCE_DBFS)


def level_dbfs(samples: np.ndarray) -> float:
    """The loudest 30 ms of (N,) float32, RMS in dB below full scale, without the constant part."""
    half = int(_LEVEL_S * SAMPLE_RATE) // 2
    centred = samples - np.float32(samples.mean(dtype=np.float64))
    halves = centred[: centred.size // half * half].reshape(-1, half) if centred.size >= 2 * half else centred[None]
    energy = np.einsum("ij,ij->i", halves, halves)
    pairs = energy[:-1] + energy[1:] if len(energy) > 1 else energy
    power = pairs.max() / min(2 * half, centred.size)
    return float(10 * np.log10(max(power, 1e-20)))


def cut(blocks: Iterable[np.ndarray], geometry: Geometry, shape: WindowShape | None = None) -> Iterator[Window]:
    """Blocks of samples (any sizes, float32) -> windows, as soon as each is complete.

    Whatever is too short for one frame at the very end belongs to no window. Nothing at all yields nothing.
    """
    shape = shape or WindowShape()
    hop = geometry.hop
    longest, context = int(shape.longest_s * SAMPLE_RATE), int(shape.context_s * SAMPLE_RATE) // hop * hop
    context = max(context, -(-geometry.receptive_field // hop) * hop)
    held: list[np.ndarray] = []  # joined once there is enough, from `before` samples ahead of the core's begin
    size = before = index = 0
    for block in blocks:
        held.append(block)
        size += block.size
        if size - before <= longest + context:
            continue
        kept = np.concatenate(held)
        while kept.size - before > longest + context:
            core = _pause(kept[before : before + longest], int(shape.search_s * SAMPLE_RATE), hop)
            part = kept[: before + core + context]
            for window in _spoken(index, part, before // hop, core // hop, geometry, long=True):
                yield window
                index += 1
            start = max(0, before + core - context)
            kept, before = kept[start:], before + core - start
        held, size = [kept], kept.size
    frames = geometry.frames(size) - before // hop
    if frames > 0:
        rest = np.concatenate(held) if len(held) > 1 else held[0]
        yield from _spoken(index, rest, before // hop, frames, geometry, long=before > 0)


def _spoken(
    index: int, samples: np.ndarray, skip: int, keep: int, geometry: Geometry, *, long: bool
) -> Iterator[Window]:
    """One window, or where there is long quiet in it several, numbered from ``index``, with the same frames to keep."""
    found = stretches(samples, geometry)
    for begin, end, speech, loud in found:
        first, last = max(begin, skip), min(end, skip + keep)
        if first >= last:
            continue
        start = begin * geometry.hop
        stop = samples.size if end == found[-1].end else start + geometry.samples(end - begin)
        silent = False if loud else None if speech else True
        yield Window(index, samples[start:stop], first - begin, last - first, silent, long)
        index += 1


def _pause(core: np.ndarray, search: int, hop: int) -> int:
    """Where to end a core: the middle of the quietest tenth of a second in its last ``search`` samples, on a hop."""
    width = SAMPLE_RATE // 10
    tail = core[-search:].astype(np.float64)
    sums = np.cumsum(np.concatenate([[0.0], tail**2]))
    energy = (sums[width:] - sums[:-width])[::hop]
    middle = core.size - search + int(energy.argmin()) * hop + width // 2
    return max(hop, middle // hop * hop)
