from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.systems.batches import Batches, Layout, Row, fastest, layouts


def clip(samples: int) -> np.ndarray:
    return np.zeros(samples, dtype=np.float32)


class Recorder:
    """A forward that notes its batches, and holds the first until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered, self.go_on = threading.Event(), threading.Event()

    def __call__(self, rows: Sequence[Row]) -> list[list[int]]:
        self.batches.append([samples.size for samples, _ in rows])
        self.entered.set()
        assert self.go_on.wait(30)
        return [[language] for _, language in rows]


def test_the_oldest_leads_and_the_nearest_in_length_join():
    forward = Recorder()
    batches = Batches(forward, Layout(1, 1, 2))
    first = batches.submit((clip(1), 0))
    assert forward.entered.wait(30)
    others = [batches.submit((clip(size), size)) for size in (100, 5, 90, 6)]
    forward.go_on.set()
    assert [answer.result(30) for answer in (first, *others)] == [[0], [100], [5], [90], [6]]
    assert [sorted(batch) for batch in forward.batches] == [[1], [90, 100], [5, 6]]
    batches.stop()


def test_the_oldest_is_taken_although_more_are_as_long():
    forward = Recorder()
    batches = Batches(forward, Layout(1, 1, 2))
    batches.submit((clip(1), 0))
    assert forward.entered.wait(30)
    answers = [batches.submit((clip(7), number)) for number in range(5)]
    forward.go_on.set()
    assert [answer.result(30) for answer in answers] == [[number] for number in range(5)]
    assert list(map(len, forward.batches)) == [1, 2, 2, 1]
    batches.stop()


def test_rows_of_one_language_where_that_is_asked():
    forward = Recorder()
    batches = Batches(forward, Layout(1, 1, 4), one_language=True)
    first = batches.submit((clip(1), 9))
    assert forward.entered.wait(30)
    others = [batches.submit((clip(size), language)) for size, language in ((5, 1), (6, 2), (7, 1), (8, 2))]
    forward.go_on.set()
    assert [answer.result(30) for answer in (first, *others)] == [[9], [1], [2], [1], [2]]
    assert [sorted(batch) for batch in forward.batches] == [[1], [5, 7], [6, 8]]
    batches.stop()


def test_a_forward_that_fails_fails_its_rows_alone():
    def forward(rows: Sequence[Row]) -> list[list[int]]:
        if any(language == 13 for _, language in rows):
            raise ValueError("thirteen")
        return [[] for _ in rows]

    batches = Batches(forward, Layout(2, 1, 1))
    bad, good = batches.submit((clip(3), 13)), batches.submit((clip(3), 1))
    with pytest.raises(ValueError, match="thirteen"):
        bad.result(30)
    assert good.result(30) == []
    batches.stop()


@pytest.mark.parametrize("on_cpu", [True, False])
def test_the_fastest_layout_is_chosen(on_cpu):
    def slow(rows: Sequence[Row]) -> list[list[int]]:
        threading.Event().wait(0.02 * len(rows))
        return [[] for _ in rows]

    def quick(rows: Sequence[Row]) -> list[list[int]]:
        return [[] for _ in rows]

    layout = Layout(1, 1, 2)
    assert fastest([(slow, layout), (quick, layout), (slow, layout)], [clip(5)] * 6, on_cpu=on_cpu) == 1


def test_what_a_gpu_does_once_for_a_shape_is_no_part_of_its_trial():
    calls = 0

    def recording(rows: Sequence[Row]) -> list[list[int]]:
        nonlocal calls
        calls += 1
        threading.Event().wait(0.1 if calls <= 3 else 0)
        return [[] for _ in rows]

    def steady(rows: Sequence[Row]) -> list[list[int]]:
        threading.Event().wait(0.02)
        return [[] for _ in rows]

    layout = Layout(1, 1, 64)
    assert fastest([(steady, layout), (recording, layout)], [clip(5)], on_cpu=False) == 1


def test_layouts_use_all_cores_and_no_more():
    for cores in (1, 2, 8):
        for layout in layouts(cores, on_cpu=True):
            assert layout.lanes * layout.threads == cores
    assert {layout.lanes for layout in layouts(4, on_cpu=True, lanes=False)} == {1}
    assert all(layout.lanes == 1 for layout in layouts(4, on_cpu=False))
