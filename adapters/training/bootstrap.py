"""How sure an error rate is: percentile intervals over resampled clips (Bisani and Ney 2004)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer
import numpy as np

_SAMPLES = 10_000
_CHUNK = 500


@dataclass(frozen=True)
class Edits:
    """Edits and length of each clip, (N,) each, in characters or words."""

    edits: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of_characters(cls, truth: Sequence[str], heard: Sequence[str]) -> Edits:
        """As jiwer counts them for CER."""
        return cls._counted(truth, heard, jiwer.process_characters)

    @classmethod
    def of_words(cls, truth: Sequence[str], heard: Sequence[str]) -> Edits:
        """As jiwer counts them for WER."""
        return cls._counted(truth, heard, jiwer.process_words)

    @classmethod
    def _counted(cls, truth: Sequence[str], heard: Sequence[str], process: object) -> Edits:
        assert callable(process)
        each = [process(one, other) for one, other in zip(truth, heard, strict=True)]
        edits = [one.substitutions + one.deletions + one.insertions for one in each]
        lengths = [one.hits + one.substitutions + one.deletions for one in each]
        return cls(np.array(edits, dtype=float), np.array(lengths, dtype=float))

    @classmethod
    def joined(cls, parts: Sequence[Edits]) -> Edits:
        """All clips of all ``parts``, one after the other."""
        return cls(np.concatenate([p.edits for p in parts]), np.concatenate([p.lengths for p in parts]))

    @classmethod
    def averaged(cls, parts: Sequence[Edits]) -> Edits:
        """Of the same clips several times over, by seeds say: a clip is drawn with all that was made of it, and weighs
        as much as one that was heard once."""
        return cls(np.mean([p.edits for p in parts], axis=0), np.mean([p.lengths for p in parts], axis=0))

    @property
    def rate(self) -> float:
        """All edits over all lengths."""
        return float(self.edits.sum() / self.lengths.sum())


def interval(found: Edits, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the rate."""
    edits, lengths = _resampled([found.edits, found.lengths], seed)
    return _bounds(edits / lengths)


def difference(one: Edits, other: Edits, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of ``one``'s rate less ``other``'s on the same clips, drawn together."""
    if not np.array_equal(one.lengths, other.lengths):
        raise ValueError("a paired bootstrap is over the same clips in the same order")
    edits, others, lengths = _resampled([one.edits, other.edits, one.lengths], seed)
    return _bounds((edits - others) / lengths)


def _resampled(columns: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """The sums of each column over as many clips, drawn with replacement."""
    rng = np.random.default_rng(seed)
    count = len(columns[0])
    sums: list[list[np.ndarray]] = [[] for _ in columns]
    for _ in range(_SAMPLES // _CHUNK):
        drawn = rng.integers(0, count, (_CHUNK, count))
        for column, found in zip(columns, sums, strict=True):
            found.append(column[drawn].sum(axis=1))
    return [np.concatenate(found) for found in sums]


def _bounds(rates: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(rates, [2.5, 97.5])
    return float(low), float(high)
