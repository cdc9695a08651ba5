"""Intervals over resampled clips, against what is known of them."""

from __future__ import annotations

import numpy as np
import pytest

from adapters.training.bootstrap import Edits, difference, interval


def made(count: int, rate: float, seed: int) -> Edits:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(10, 40, count).astype(float)
    return Edits(rng.binomial(lengths.astype(int), rate).astype(float), lengths)


def test_edits_are_jiwers():
    characters = Edits.of_characters(["ab cd", "xyz"], ["ab c", "axyz"])
    assert characters.edits.tolist() == [1, 1]
    assert characters.lengths.tolist() == [5, 3]
    words = Edits.of_words(["ab cd", "xyz"], ["ab c", "axyz"])
    assert (words.edits.tolist(), words.lengths.tolist()) == ([1, 1], [2, 1])
    assert words.rate == pytest.approx(2 / 3)
    assert Edits.of_words(["a b"], [""]).edits.tolist() == [2], "nothing heard"


def test_an_interval_is_as_wide_as_the_normal_one():
    """Of a binomial over about 10,000 characters, 2 * 1.96 * sqrt(p (1 - p) / n)."""
    found = made(400, 0.2, seed=1)
    low, high = interval(found)
    assert low < found.rate < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.16 / found.lengths.sum()), rel=0.15)


def test_the_truth_lies_in_nineteen_of_twenty_intervals():
    inside = sum(low <= 0.2 <= high for low, high in (interval(made(100, 0.2, seed)) for seed in range(100)))
    assert 88 <= inside <= 99


def test_a_paired_difference_is_sharper_than_two_intervals():
    """Of two systems that err on the same clips, one of them once more on every tenth."""
    one = made(300, 0.3, seed=2)
    other = Edits(one.edits + (np.arange(300) % 10 == 0), one.lengths)
    low, high = difference(other, one)
    assert 0 < low < other.rate - one.rate < high
    assert high - low < 0.3 * (interval(one)[1] - interval(one)[0])
    assert difference(one, one) == (0.0, 0.0)
    with pytest.raises(ValueError, match="same clips"):
        difference(one, made(300, 0.3, seed=3))


def test_seeds_are_drawn_together():
    """A clip that all seeds saw is one clip: three times the same says no more than once."""
    one = made(200, 0.2, seed=4)
    assert interval(Edits.averaged([one, one, one])) == pytest.approx(interval(one))
    other = made(100, 0.6, seed=5)
    often = Edits.joined([Edits.averaged([one, one, one]), other])
    assert often.rate == pytest.approx(Edits.joined([one, other]).rate), "three seeds weigh as much as one"
    low, high = interval(Edits.joined([one, one, one]))
    assert high - low < 0.7 * (interval(one)[1] - interval(one)[0])
