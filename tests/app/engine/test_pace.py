"""The budget out of made-up measurements."""

from __future__ import annotations

import pytest

from app.engine.pace import TRIAL_FRAMES, Pace

PACE = Pace(step_s=0.4, least=200, most=1_600)


def machine(frame_s: float, fixed_s: float, asked: list[int]):
    def forward_s(rows: int) -> float:
        asked.append(rows)
        return fixed_s + rows * TRIAL_FRAMES * frame_s

    return forward_s


@pytest.mark.parametrize(
    ("frame_s", "frames"),
    [(1e-5, 1_600), (4e-4, 1_000), (1e-3, 400), (2e-3, 200), (1e-1, 200)],
    ids=["fast: bounded", "between", "slow", "slower", "slowest: bounded"],
)
def test_a_batch_takes_about_the_step_within_bounds(frame_s, frames):
    assert PACE.measure(machine(frame_s, 0.0, [])).frames == frames


def test_a_fixed_cost_allows_for_fewer_frames_and_never_for_a_longer_step():
    frames = PACE.measure(machine(4e-4, 0.05, [])).frames
    assert 200 < frames < 1_000
    assert 0.05 + frames * 4e-4 <= 0.45


def test_a_slow_machine_is_asked_for_no_more_than_it_must():
    asked: list[int] = []
    PACE.measure(machine(2e-3, 0.0, asked))
    assert asked == [1, 2, 4]
    asked.clear()
    PACE.measure(machine(1.0, 0.0, asked))
    assert asked == [1]
    asked.clear()
    PACE.measure(machine(1e-6, 0.0, asked))
    assert asked == [1, 2, 4, 8, 16], "no batch over the largest budget"


def test_where_one_row_takes_longer_than_a_step_others_join_it_while_they_are_nearly_free():
    """A deep backbone on a GPU: 25 ms whatever a batch holds, and 10 us a frame."""
    asked: list[int] = []
    gpu = Pace(step_s=0.02, least=1_600, most=32_000, singles=2.0)
    frames = gpu.measure(machine(1e-5, 0.025, asked)).frames
    assert frames > 2_000
    assert 0.025 + frames * 1e-5 <= 1.2 * 2 * 0.026
    assert asked == [1, 2, 4, 8, 16, 32]
    assert gpu.measure(machine(1e-6, 0.002, [])).frames > 15_000, "the step"
    assert gpu.measure(machine(1e-3, 0.0, [])).frames == 1_600, "nothing is free"


@pytest.mark.parametrize(("fixed_s", "frame_s"), [(0.002, 2.34e-6), (0.0013, 0.7e-6), (0.025, 1e-5)])
def test_what_a_step_costs_besides_is_told_in_frames(fixed_s, frame_s):
    gpu = Pace(step_s=0.02, least=1_600, most=32_000, singles=2.0)
    assert gpu.measure(machine(frame_s, fixed_s, [])).overhead == pytest.approx(fixed_s / frame_s, rel=0.01)


def test_what_cannot_be_told_of_a_step_is_bounded():
    assert PACE.measure(machine(1.0, 0.0, [])).overhead == 0, "one row was all"
    assert PACE.measure(machine(0.0, 1e-3, [])).overhead == PACE.most, "rows are free"
