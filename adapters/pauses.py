"""Where the emissions of a long recording are cut, so that a search of each part finds what one of all would.

Where the blank is so sure that a search looks at no other token, and a word has ended, what comes later can change what
was said before by little more than the words that a language model or a hot phrase would see on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

MOST = 2_000
"""Frames (40 s) that are searched as one: half a second to six, by how unsure they are."""

_LEAST = 1_000
_SURE = -5.0
"""Log probability against the blank's, below which a search leaves a token out of account."""


@dataclass(frozen=True)
class _Pauses:
    """Runs of frames in which the blank is sure; ``between``: whether a word ends there."""

    begins: np.ndarray
    ends: np.ndarray
    between: np.ndarray

    @classmethod
    def of(cls, emissions: np.ndarray, delimiter: int | None) -> _Pauses:
        sure = emissions[:, 1:].max(axis=1, initial=-np.inf) < emissions[:, 0] + _SURE
        edges = np.flatnonzero(np.diff(sure.astype(np.int8), prepend=0, append=0))
        begins, ends = edges[::2], edges[1::2]
        best = emissions.argmax(axis=1)
        said = np.flatnonzero(best)
        tokens = np.concatenate([[-1], best[said], [-1]])  # nothing comes before the first, or after the last
        before, after = tokens[np.searchsorted(said, begins)], tokens[np.searchsorted(said, begins) + 1]
        apart = [-1] if delimiter is None else [-1, delimiter]
        return cls(begins, ends, np.isin(before, apart) | np.isin(after, apart))

    def cut(self, low: int, high: int) -> int:
        """The middle of the longest one from ``low`` to ``high``, of those between words if there are any; without
        one, ``high``."""
        begins, ends = np.clip(self.begins, low, high), np.clip(self.ends, low, high)
        lengths = ends - begins
        if not lengths.any():
            return high
        best = int(np.argmax(np.where(lengths > 0, lengths + MOST * self.between, 0)))
        return int(begins[best] + ends[best]) // 2


def parts(emissions: np.ndarray, delimiter: int | None) -> list[tuple[int, int]]:
    """(T, C) log probabilities, of which column 0 is the blank -> first frame and end of each part, in their order.

    One alone up to :data:`MOST` frames. None is longer: where nobody ever pauses, words are cut.
    """
    frames = len(emissions)
    cuts = [0]
    if frames > MOST:
        pauses = _Pauses.of(emissions, delimiter)
        while frames - cuts[-1] > MOST:
            cuts.append(pauses.cut(cuts[-1] + _LEAST, cuts[-1] + MOST))
    return list(pairwise([*cuts, frames]))
