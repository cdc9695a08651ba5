"""Which of the windows that wait make the best batch with the one that is due first, where a step has a price of its
own: on a GPU.

A device of few shapes computes a batch's rows, rounded up, times its width, rounded up, and a step costs as much as
``overhead`` frames besides, whatever is in it. Of all that only frames of speech are of use, so those rows are taken
that make each of them the cheapest. Pure arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from app.engine.job import Job


class Packing:
    """Batches of at most ``max_rows`` rows and ``max_frames`` computed frames. ``computed(rows, longest)``: the frames
    that so many rows are computed as, the longest of so many, as a product of what follows from either. No row is more
    than ``stretch`` times as long as the one that is due first: a short clip waits for no long one."""

    def __init__(
        self, computed: Callable[[int, int], int], overhead: int, max_frames: int, max_rows: int, stretch: float
    ) -> None:
        self._computed, self._overhead, self._max_frames, self._stretch = computed, overhead, max_frames, stretch
        one = computed(1, 1)
        self._rounded = [computed(rows, 1) // one for rows in range(max_rows + 1)]
        self._widths: dict[int, int] = {}

    def best(self, first: Job, others: Sequence[Job], share: float) -> list[Job]:
        """``first`` and some of ``others``, which are in the order in which they are due. ``share``: how many frames a
        lane may take; none is taken that would bring it further from there.

        For each width those that fit are taken, the longest first, as long as it pays, and of equal ones who is due
        first; the best of these batches is it.
        """
        longest = first.frames * self._stretch
        fitting = sorted((job for job in others if job.frames <= longest), key=lambda job: -job.frames)
        widths = [self._width(job.frames) for job in fitting]
        narrowest = self._width(first.frames)
        if first.rows >= len(self._rounded):
            return [first]
        lowest = self._price(self._rounded[first.rows] * narrowest, first.size)
        chosen = slice(0, 0)
        begin = 0
        while begin < len(fitting):
            width = max(narrowest, widths[begin])
            rows, taken = first.rows, first.size
            for number in range(begin, len(fitting)):
                job = fitting[number]
                rows += job.rows
                if rows >= len(self._rounded) or taken + job.size / 2 > share:
                    break
                frames = self._rounded[rows] * width
                if frames > self._max_frames:
                    break
                taken += job.size
                if (price := self._price(frames, taken)) < lowest:
                    lowest, chosen = price, slice(begin, number + 1)
            if width == narrowest:
                break
            while begin < len(fitting) and widths[begin] == width:
                begin += 1
        return [first, *fitting[chosen]]

    def _price(self, frames: int, taken: int) -> float:
        """Of a frame of speech."""
        return (self._overhead + frames) / taken

    def _width(self, frames: int) -> int:
        """What a row is computed as."""
        if frames not in self._widths:
            self._widths[frames] = self._computed(1, frames)
        return self._widths[frames]
