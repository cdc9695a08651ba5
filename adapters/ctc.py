"""From logits to words: greedy CTC decoding with times and confidence (Graves et al. 2006).

The device reduces logits to one token and one probability a frame; those small arrays, joined over the windows of a
long recording, are all that the host needs for a transcript.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from adapters.vocab import Vocab

_LEAST = np.float32(math.exp(-20.0))


class Word(NamedTuple):
    """One word: its text, begin and end in seconds from the start of the audio, and a confidence in 0..1."""

    text: str
    start_s: float
    end_s: float
    confidence: float

    @classmethod
    def at(cls, text: str, frames: tuple[int, int], confidence: float, *, frame_s: float, duration_s: float) -> Word:
        """From the first of ``frames`` up to, not with, the second; no longer than the audio."""
        start_s, end_s = frames[0] * frame_s, min(frames[1] * frame_s, duration_s)
        return cls(text, round(start_s, 3), round(max(end_s, start_s), 3), round(confidence, 4))


@dataclass(frozen=True)
class Transcript:
    """What was said. ``confidence`` is the mean over the words' letters, None where nothing was said."""

    text: str
    words: tuple[Word, ...]
    duration_s: float
    confidence: float | None

    @classmethod
    def of(cls, words: Sequence[Word], duration_s: float) -> Transcript:
        """Of ``words``, in their order."""
        confidence = None
        if words:
            letters = sum(len(word.text) for word in words)
            confidence = sum(word.confidence * len(word.text) for word in words) / letters
        return cls(" ".join(word.text for word in words), tuple(words), duration_s, confidence)


@dataclass(frozen=True)
class BestPath:
    """The best token of each frame and its probability: ``ids`` (T,) int32, ``probabilities`` (T,) float32.
    ``emissions`` (T, V) float32: the log probabilities of all tokens, where somebody asked for them: what a beam search
    needs."""

    ids: np.ndarray
    probabilities: np.ndarray
    emissions: np.ndarray | None = None

    def __len__(self) -> int:
        return int(self.ids.size)

    def slice(self, begin: int, end: int) -> BestPath:
        """Frames ``begin`` up to ``end``."""
        every = None if self.emissions is None else self.emissions[begin:end]
        return BestPath(self.ids[begin:end], self.probabilities[begin:end], every)

    @classmethod
    def blanks(cls, frames: int, blank: int) -> BestPath:
        """Frames in which nothing is said."""
        return cls(np.full(frames, blank, dtype=np.int32), np.ones(frames, dtype=np.float32))

    @classmethod
    def pause(cls, frames: int, vocab: Vocab) -> BestPath:
        """Frames in which nobody speaks: words end before them and begin after them, where something parts words."""
        path = cls.blanks(frames, vocab.blank)
        if vocab.delimiter is not None:
            path.ids[frames // 2 : frames // 2 + 1] = vocab.delimiter
        return path

    @classmethod
    def join(cls, parts: Iterable[BestPath]) -> BestPath:
        """One path after the other. Where one has the probabilities of all tokens, all have: of frames that nobody has
        heard the best token is certain."""
        kept = list(parts)
        if len(kept) == 1:
            return kept[0]
        if not kept:
            return cls(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32))
        ids, probabilities = (np.concatenate([getattr(p, name) for p in kept]) for name in ("ids", "probabilities"))
        sizes = {p.emissions.shape[1] for p in kept if p.emissions is not None}
        if not sizes:
            return cls(ids, probabilities)
        return cls(ids, probabilities, np.concatenate([p._every(max(sizes)) for p in kept]))

    def _every(self, size: int) -> np.ndarray:
        if self.emissions is not None:
            return self.emissions
        certain = np.full((len(self), size), -np.inf, dtype=np.float32)
        certain[np.arange(len(self)), self.ids] = 0.0
        return certain

    @property
    def log_probability(self) -> float:
        """Of the whole path: the sum over its frames, each at least -20."""
        return float(np.log(np.maximum(self.probabilities, _LEAST)).sum(dtype=np.float64))


def best_tokens(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, T, V), -inf beyond a row's own vocabulary -> best token (B, T) int32 and its probability (B, T).

    The softmax is taken in float32 over the row's own vocabulary alone, since exp(-inf) is 0.
    """
    wide = logits.float()
    best, ids = wide.max(dim=2)
    return ids.to(torch.int32), torch.exp(best - torch.logsumexp(wide, dim=2))


def transcript(path: BestPath, vocab: Vocab, *, frame_s: float, duration_s: float) -> Transcript:
    """The :func:`words` of a path and what they say together."""
    return Transcript.of(words(path, vocab, frame_s=frame_s, duration_s=duration_s), duration_s)


def words(path: BestPath, vocab: Vocab, *, frame_s: float, duration_s: float) -> list[Word]:
    """Collapse repeats, drop blanks, part words.

    ``frame_s``: seconds a frame (0.02). A word begins with the first frame of its first letter and ends with the last
    frame of its last one; its confidence is the mean over its letters of each letter's best frame.
    """
    letters = _letters(path, vocab)
    begins, ends, sure = letters.begins.tolist(), letters.ends.tolist(), letters.probabilities.tolist()
    found = []
    for first, stop, text in vocab.spell(letters.tokens):
        frames = begins[first], ends[stop - 1]
        mean = sum(sure[first:stop]) / (stop - first)
        found.append(Word.at(text, frames, mean, frame_s=frame_s, duration_s=duration_s))
    return found


_LONG = 12  # frames


class _Letters(NamedTuple):
    """What is said, in order, gaps between words too, column by column. ``ends``: frames, each one beyond the letter's
    last; ``probabilities``: of its best frame."""

    tokens: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    probabilities: np.ndarray


def _letters(path: BestPath, vocab: Vocab) -> _Letters:
    if not len(path):
        return _Letters(path.ids, path.ids, path.ids, path.probabilities)
    changes = (path.ids[1:] != path.ids[:-1]).nonzero()[0]
    edges = np.empty(changes.size + 2, dtype=np.int64)  # of runs of one token
    edges[0], edges[1:-1], edges[-1] = 0, changes + 1, len(path)
    said = vocab.says[path.ids[edges[:-1]]]
    begins, ends = edges[:-1][said], edges[1:][said]
    return _Letters(path.ids[begins], begins, ends, _most(path.probabilities, begins, ends))


def _most(values: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The largest of ``values`` (T,) from each of ``begins`` (N,) up to its one of ``ends``. Letters are short: to pass
    over them once for each frame of the longest takes a fifth of the time of ``np.maximum.reduceat``."""
    longest = int((ends - begins).max(initial=0))
    if longest > _LONG:
        return np.maximum.reduceat(np.append(values, -np.inf), np.stack([begins, ends], axis=1).ravel())[::2]
    found: np.ndarray = values[begins]
    for step in range(1, longest):
        np.maximum(found, values[np.minimum(begins + step, ends - 1)], out=found)
    return found
