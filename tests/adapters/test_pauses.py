"""Where a long recording is cut for a search: at sure pauses between words, and never too seldom."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from adapters.pauses import MOST, parts

BLANK, SPACE, A = 0, 1, 2


def path(*runs: tuple[int, int], sure: float = 0.999) -> np.ndarray:
    """(T, 4): each token for so many frames."""
    tokens = np.repeat([token for token, _ in runs], [frames for _, frames in runs])
    found = np.full((len(tokens), 4), (1 - sure) / 3)
    found[np.arange(len(tokens)), tokens] = sure
    told: np.ndarray = np.log(found).astype(np.float32)
    return told


def test_what_is_no_longer_than_a_part_is_one():
    assert parts(path((A, MOST)), SPACE) == [(0, MOST)]
    assert parts(path((BLANK, 3)), SPACE) == [(0, 3)]


def test_a_cut_is_in_the_middle_of_the_longest_pause_between_words():
    emissions = path(
        (A, 1_200), (SPACE, 1), (BLANK, 10), (A, 300), (BLANK, 20), (SPACE, 1), (A, 50), (BLANK, 90), (A, 1_000)
    )
    assert parts(emissions, SPACE) == [(0, 1_521), (1_521, len(emissions))], "not in 90 frames within a word"


def test_blanks_that_are_not_sure_are_no_pause():
    start, end = path((A, 1_100), (SPACE, 1), (BLANK, 4)), path((A, 1_500))
    unsure = path((A, 100), (SPACE, 1), (BLANK, 60), sure=0.97)
    emissions = np.concatenate([start, unsure, end])
    assert parts(emissions, SPACE) == [(0, 1_103), (1_103, len(emissions))]


def test_an_hour_of_anything_is_cut_into_parts_that_follow_each_other():
    rng = np.random.default_rng(0)
    noise = np.log(rng.dirichlet(np.ones(4), 180_000)).astype(np.float32)
    for emissions in (
        noise,
        path((BLANK, 180_000)),
        path((A, 180_000)),
        path(*[(A, 3), (SPACE, 2), (BLANK, 7)] * 9_000),
    ):
        for delimiter in (SPACE, None):
            found = parts(emissions, delimiter)
            assert (found[0][0], found[-1][1]) == (0, len(emissions))
            assert all(before[1] == after[0] for before, after in pairwise(found))
            assert all(0 < end - begin <= MOST for begin, end in found)
            assert len(found) < 190
