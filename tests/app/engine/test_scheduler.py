"""The scheduler against its promises, over random traffic with a clock of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.windows import Window
from app.engine.job import Batch, Job, Part, Worn
from app.engine.scheduler import Budget, Scheduler, Seatable

BUDGET = Budget(max_frames=1_000, max_rows=8, max_adapters=3)
WINDOW = Window(0, np.zeros(1, np.float32), 0, 0)


def job(number: int, frames: int, language: str = "e", request: str | None = None, part: Part = "whole") -> Job:
    languages = tuple(language)
    worn = tuple(Worn(one, "1") for one in languages)
    return Job(number, request or f"r{number}", worn, languages, WINDOW, frames, part=part)


def always(want: tuple[Worn, ...]) -> bool:
    return True


def batch_of(scheduler: Scheduler, seatable: Seatable) -> Batch:
    batch = scheduler.next_batch(0, seatable)
    assert batch is not None
    return batch


def test_languages_mix_in_one_batch_in_the_order_of_arrival():
    scheduler = Scheduler(BUDGET)
    for number, language in enumerate(["e", "f", "e", "r"]):
        scheduler.add(job(number, 100, language), now=number)
    batch = scheduler.next_batch(9.0, always)
    assert batch is not None
    assert batch.languages == ("e", "f", "e", "r")
    assert [j.times_s["batched"] for j in batch.jobs] == [9.0] * 4


def test_rows_far_shorter_than_the_leader_wait_for_their_own_batch():
    scheduler = Scheduler(BUDGET)
    for number, frames in enumerate([400, 50, 300, 60]):
        scheduler.add(job(number, frames), now=0)
    assert [j.frames for j in batch_of(scheduler, always).jobs] == [400, 300]
    assert [j.frames for j in batch_of(scheduler, always).jobs] == [50, 60]


@pytest.mark.parametrize(
    ("lanes", "waiting", "taken"),
    [
        (1, [100] * 4, [4]),
        (2, [100] * 2, [1, 1]),
        (2, [100] * 4, [2, 1, 1]),
        (2, [100, 98, 95, 90], [2, 1, 1]),
        (4, [100] * 4, [1] * 4),
        (2, [100] * 3, [2, 1]),
        (2, [100] * 30, [8, 8, 7, 4, 2, 1]),  # the budget, as long as there is more than that for each
        (2, [900, 100], [1, 1]),
    ],
    ids=str,
)
def test_no_lane_takes_more_than_its_share(lanes, waiting, taken):
    scheduler = Scheduler(BUDGET, lanes)
    for number, frames in enumerate(waiting):
        scheduler.add(job(number, frames), now=0)
    ran = []
    while (batch := scheduler.next_batch(0, always)) is not None:
        ran.append(batch.rows)
    assert ran == taken


def test_what_cannot_run_is_nobodys_share():
    scheduler = Scheduler(BUDGET, lanes=2)
    for number, language in enumerate("eeeeffff"):
        scheduler.add(job(number, 100, language), now=0)
    scheduler.add(replace(job(8, 400, "f"), long=True), now=0)
    scheduler.add(job(9, 400, "f", part="top"), now=0)
    batch = scheduler.next_batch(0, lambda want: want[0].name == "f", long=False)
    assert batch is not None
    assert (batch.part, batch.rows) == ("whole", 2)


def test_a_job_over_the_budget_runs_alone():
    scheduler = Scheduler(BUDGET)
    scheduler.add(job(0, 5_000), now=0)
    scheduler.add(job(1, 4_000), now=0)
    assert len(batch_of(scheduler, always).jobs) == 1


def test_an_adapter_without_a_seat_does_not_hold_up_the_others():
    scheduler = Scheduler(BUDGET)
    for number, language in enumerate(["e", "f", "e", "f"]):
        scheduler.add(job(number, 100, language), now=0)
    batch = batch_of(scheduler, lambda want: want[0].name == "f")
    assert batch.languages == ("f", "f")
    assert scheduler.next_batch(0, lambda want: want[0].name == "f") is None
    assert len(scheduler) == 2


def test_each_adapter_is_asked_for_once():
    asked: list[tuple[Worn, ...]] = []
    scheduler = Scheduler(BUDGET)
    for number, language in enumerate(["e", "f", "e"]):
        scheduler.add(job(number, 100, language), now=0)

    def seatable(want: tuple[Worn, ...]) -> bool:
        asked.append(want)
        return True

    batch = batch_of(scheduler, seatable)
    assert sorted(want[0].name for want in asked) == ["e", "f"]
    assert sorted(worn.name for worn in batch.worn) == ["e", "f"]


def test_a_request_whose_client_has_gone_leaves_the_queue():
    scheduler = Scheduler(BUDGET)
    scheduler.add(job(0, 100, request="a"), now=0)
    scheduler.add(job(1, 100, request="b"), now=0)
    assert [j.id for j in scheduler.cancel("a")] == [0]
    assert [j.id for j in batch_of(scheduler, always).jobs] == [1]


def test_a_job_in_several_adapters_has_a_row_for_each_and_waits_for_all():
    scheduler = Scheduler(BUDGET)
    for number, languages in enumerate(["ab", "c", "bd"]):
        scheduler.add(job(number, 300, languages), now=number)
    batch = batch_of(scheduler, lambda want: all(worn.name != "d" for worn in want))
    assert batch.languages == ("a", "b", "c")
    assert (batch.rows, batch.padded_frames) == (3, 900)
    assert [j.id for j in batch_of(scheduler, always).jobs] == [2]


def test_parts_of_forwards_run_apart_and_a_trunk_is_a_row_that_wears_nothing():
    scheduler = Scheduler(BUDGET)
    for number, (languages, part) in enumerate([("", "trunk"), ("ab", "top"), ("", "trunk"), ("a", "whole")]):
        scheduler.add(job(number, 300, languages, part=part), now=number)  # type: ignore[arg-type]
    ran = [batch_of(scheduler, always) for _ in range(3)]
    assert [(batch.part, batch.rows, [j.id for j in batch.jobs]) for batch in ran] == [
        ("trunk", 2, [0, 2]), ("top", 2, [1]), ("whole", 1, [3])
    ]  # fmt: skip
    assert ran[0].padded_frames == 600


@given(
    st.lists(
        st.tuples(
            st.integers(1, 1_200),
            st.sets(st.sampled_from("abcdefgh"), max_size=4).map(sorted),
            st.sampled_from(["whole", "top"]),
        ),
        max_size=60,
    ),
    st.sets(st.sampled_from("abcdefgh")),
    st.integers(1, 4),
    st.sampled_from([None, 0, 100, 10_000]),
)
def test_every_job_runs_once_within_the_budget(traffic, seated, lanes, overhead):
    scheduler = Scheduler(replace(BUDGET, overhead=overhead), lanes)
    for number, (frames, languages, part) in enumerate(traffic):
        scheduler.add(job(number, frames, "".join(languages), part=part if languages else "trunk"), now=number)
    ran: list[int] = []
    for _ in range(len(traffic) + 1):
        can = [j for j in scheduler._queue.values() if all(worn.name in seated for worn in j.worn)]
        batch = scheduler.next_batch(100.0, lambda want: all(worn.name in seated for worn in want))
        if batch is None:
            assert not can
            break
        assert can[0] in batch.jobs, "the oldest job that can run is in the next batch: nothing starves"
        if len(batch.jobs) > 1:
            assert batch.padded_frames <= BUDGET.max_frames
            assert batch.rows <= BUDGET.max_rows
            assert len(batch.worn) <= BUDGET.max_adapters
        shortest = can[0].frames if overhead is not None else min(j.frames for j in batch.jobs)
        assert shortest * 2 >= max(j.frames for j in batch.jobs)
        assert len({j.part for j in batch.jobs}) == 1
        ran += [j.id for j in batch.jobs]
    assert sorted(ran) == [n for n, (_, languages, _) in enumerate(traffic) if seated.issuperset(languages)]
