"""Which rows a batch of a GPU has: worked examples, and against every other choice where there are few."""

from __future__ import annotations

import math
import operator
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.recogniser import computed_frames
from adapters.windows import Window
from app.engine.job import Job, Worn
from app.engine.packing import Packing

WINDOW = Window(0, np.zeros(1, np.float32), 0, 0)


def job(number: int, frames: int, rows: int = 1) -> Job:
    worn = tuple(Worn(f"{number}-{row}", "1") for row in range(rows))
    return Job(number, f"r{number}", worn, ("e",) * rows, WINDOW, frames)


def packed(frames: list[int], *, overhead: int, stretch: float = 2.0, most: int = 10_000, share: float = math.inf):
    first, *others = (job(number, each) for number, each in enumerate(frames))
    packing = Packing(operator.mul, overhead, most, 8, stretch)
    return [one.frames for one in packing.best(first, others, share)]


def test_rows_of_one_length_go_together_and_others_wait():
    assert packed([100, 190, 100, 20, 100], overhead=50) == [100, 100, 100]


def test_where_a_step_is_dear_padding_is_cheaper_than_another_step():
    assert sorted(packed([100, 190, 100, 20, 100], overhead=5_000)) == [20, 100, 100, 100, 190]
    assert packed([100, 190, 100, 20, 100], overhead=0) == [100], "and where it is free none is worth any"


def test_a_short_clip_waits_for_no_long_one():
    assert packed([100, 800, 800, 800], overhead=1_000) == [100]
    assert packed([100, 800, 800, 800], overhead=1_000, stretch=8.0) == [100, 800, 800, 800]


def test_who_is_longest_and_due_first_is_taken_first_within_the_budget():
    others = [job(1, 90), job(2, 100), job(3, 90), job(4, 90)]
    chosen = Packing(operator.mul, 1_000, 400, 8, 2.0).best(job(0, 100), others, math.inf)
    assert [one.id for one in chosen] == [0, 2, 1, 3]


def test_of_two_lanes_none_takes_what_the_other_could():
    assert packed([100] * 4, overhead=1_000, share=200) == [100, 100]
    assert packed([100] * 3, overhead=1_000, share=150) == [100, 100]


def test_a_job_of_more_rows_than_there_may_be_runs_alone():
    packing = Packing(operator.mul, 1_000, 10_000, 8, 2.0)
    assert len(packing.best(job(0, 100, rows=9), [job(1, 100)], math.inf)) == 1


@pytest.mark.parametrize("overhead", [0, 300, 1_900])
@given(frames=st.lists(st.integers(20, 900), min_size=1, max_size=9))
def test_it_is_about_as_cheap_as_any_choice_can_be(overhead, frames):
    """Rows of one width are taken from the longest down, which no other choice of as many beats."""
    first, *others = (job(number, each) for number, each in enumerate(frames))
    packing = Packing(computed_frames, overhead, 6_000, 16, 2.0)

    def price(jobs: tuple[Job, ...]) -> float:
        together = computed_frames(len(jobs), max(one.frames for one in jobs))
        return math.inf if together > 6_000 and len(jobs) > 1 else (overhead + together) / sum(j.frames for j in jobs)

    chosen = packing.best(first, others, math.inf)
    assert chosen[0] is first
    fitting = [one for one in others if one.frames <= 2 * first.frames]
    choices = [(first, *some) for count in range(len(fitting) + 1) for some in combinations(fitting, count)]
    assert price(tuple(chosen)) <= min(map(price, choices)) * (1 + 1e-9)
