"""Batches come in their order whoever prepares them, and what goes wrong in a worker is told."""

from __future__ import annotations

import os
from itertools import count, islice

import numpy as np
import pytest

from adapters.training.feed import prepared_ahead, workers_for


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_what_is_prepared_comes_in_order_and_once(workers):
    found = list(islice(prepared_ahead(lambda number: (number, number**2), count(), workers), 40))
    assert found == [(number, number**2) for number in range(40)]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_order_that_ends_is_followed_to_its_end(workers):
    assert list(prepared_ahead(str, iter(range(7)), workers)) == [*"0123456"]


def test_workers_are_processes_of_their_own():
    pids = set(prepared_ahead(lambda number: os.getpid(), iter(range(8)), 2))
    assert len(pids) == 2
    assert os.getpid() not in pids


@pytest.mark.parametrize("workers", [0, 2])
def test_arrays_stay_arrays(workers):
    (array,) = prepared_ahead(lambda number: np.full(3, number, np.int16), iter([4]), workers)
    assert isinstance(array, np.ndarray)
    assert array.tolist() == [4, 4, 4]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_goes_wrong_is_told(workers):
    def prepare(number: int) -> int:
        if number == 3:
            raise ValueError("clip 3 is broken")
        return number

    batches = prepared_ahead(prepare, count(), workers)
    assert list(islice(batches, 3)) == [0, 1, 2]
    with pytest.raises(ValueError, match="clip 3 is broken"):
        next(batches)


def test_a_cpu_computes_with_all_its_cores():
    assert workers_for("cpu") == 0
    assert workers_for("cuda") >= 1
