"""The likeliest path that spells a text: against all paths that there are."""

from __future__ import annotations

from itertools import groupby, product

import numpy as np
import pytest

from adapters.training.alignment import align


def emissions(frames: int, tokens: int, seed: int) -> np.ndarray:
    wide = 2.0 * np.random.default_rng(seed).standard_normal((frames, tokens))
    wide -= np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return wide


def spelled(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(token for token, _ in groupby(path) if token != 0)


@pytest.mark.parametrize("labels", [(1,), (1, 2), (2, 2), (1, 2, 1)], ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_no_path_is_likelier(labels, seed):
    heard = emissions(6, 3, seed)
    paths = [path for path in product(range(3), repeat=6) if spelled(path) == labels]
    best = max(paths, key=lambda path: sum(heard[frame, token] for frame, token in enumerate(path)))
    runs, frame = [], 0
    for token, run in groupby(best):
        length = len(list(run))
        if token:
            runs.append((frame, frame + length))
        frame += length
    assert align(heard, labels, 0) == runs


@pytest.mark.parametrize(("labels", "frames"), [((1, 1), 2), ((1, 2, 1), 2), ((), 4)])
def test_what_does_not_fit_is_not_spelled(labels, frames):
    assert align(emissions(frames, 3, 0), labels, 0) is None


def test_it_may_fill_every_frame():
    assert align(emissions(2, 3, 1), (2, 1), 0) == [(0, 1), (1, 2)]
