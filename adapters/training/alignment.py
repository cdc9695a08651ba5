"""When each letter of a known text is said: the likeliest path of CTC that spells it (Graves et al. 2006, section 4.1,
with the maximum in place of the sum)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def align(emissions: np.ndarray, labels: Sequence[int], blank: int) -> list[tuple[int, int]] | None:
    """(T, V) log probabilities and L labels -> the frames of each label, first and one past the last; None where T
    frames are too few for them."""
    frames, spelled = emissions.shape[0], np.full(2 * len(labels) + 1, blank)
    spelled[1::2] = labels
    skips = np.zeros(spelled.size, dtype=bool)  # over the blank between two different labels
    skips[3::2] = spelled[3::2] != spelled[1:-2:2]
    best = np.full(spelled.size, -np.inf)
    best[:2] = emissions[0, spelled[:2]]
    came = np.zeros((frames, spelled.size), dtype=np.int8)
    for frame in range(1, frames):
        before = np.stack([best, np.roll(best, 1), np.roll(best, 2)])
        before[1, :1], before[2, :2] = -np.inf, -np.inf
        before[2, ~skips] = -np.inf
        came[frame] = before.argmax(axis=0)
        best = before.max(axis=0) + emissions[frame, spelled]
    if not len(labels) or np.isneginf(best[-2:]).all():
        return None
    state = spelled.size - 1 - int(best[-2] > best[-1])
    found: list[list[int]] = [[] for _ in labels]
    for frame in range(frames - 1, -1, -1):
        if state % 2:
            found[state // 2].append(frame)
        state -= int(came[frame, state])
    return [(said[-1], said[0] + 1) for said in found]
