"""The scheduler against its promises, over random traffic with a clock of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from adapters.windows import Window
from app.engine.job import Batch, Job, Worn
from app.engine.scheduler import Budget, Scheduler

BUDGET = Budget(max_frames=1_000, max_rows=8, max_adapters=3)
WINDOW = Window(0, np.zeros(1, np.float32), 0, 0)


def job(number: int, frames: int, language: str = "es", request: str | None = None) -> Job:
    return Job(number, request or f"r{number}", Worn(language, "1"), language, WINDOW, frames)


def always(worn: Worn) -> bool:
    return True


def batch_of(scheduler: Scheduler, take: Callable[[Worn], bool]) -> Batch:
    batch = scheduler.next_batch(0, take)
    assert batch is not None
    return batch


def test_languages_mix_in_one_batch_in_the_order_of_arrival():
    scheduler = Scheduler(BUDGET)
    for number, language in enumerate(["es", "fr", "es", "ru"]):
        scheduler.add(job(number, 100, language), now=number)
    batch = scheduler.next_batch(9.0, always)
    assert batch is not None
    assert batch.languages == ("es", "fr", "es", "ru")
    assert [j.times_s["batched"] for j in batch.jobs] == [9.0] * 4


def test_rows_far_shorter_than_the_leader_wait_for_their_own_batch():
    scheduler = Scheduler(BUDGET)
    for number, frames in enumerate([400, 50, 300, 60]):
        scheduler.add(job(number, frames), now=0)
    assert [j.frames for j in batch_of(scheduler, always).jobs] == [400, 300]
    assert [j.frames for j in batch_of(scheduler, always).jobs] == [50, 60]


def test_a_job_over_the_budget_runs_alone():
    scheduler = Scheduler(BUDGET)
    scheduler.add(job(0, 5_000), now=0)
    scheduler.add(job(1, 4_000), now=0)
    assert len(batch_of(scheduler, always).jobs) == 1


def test_an_adapter_without_a_seat_does_not_hold_up_the_others():
    scheduler = Scheduler(BUDGET)
    for number, language in enumerate(["es", "fr", "es", "fr"]):
        scheduler.add(job(number, 100, language), now=0)
    batch = batch_of(scheduler, lambda worn: worn.name == "fr")
    assert batch.languages == ("fr", "fr")
    assert scheduler.next_batch(0, lambda worn: worn.name == "fr") is None
    assert len(scheduler) == 2


def test_references_are_taken_once_for_each_adapter_of_the_batch():
    taken: list[Worn] = []
    scheduler = Scheduler(BUDGET)
    for number, language in enumerate(["es", "fr", "es"]):
        scheduler.add(job(number, 100, language), now=0)

    def take(worn: Worn) -> bool:
        taken.append(worn)
        return True

    batch_of(scheduler, take)
    assert sorted(worn.name for worn in taken) == ["es", "fr"]


def test_a_request_whose_client_has_gone_leaves_the_queue():
    scheduler = Scheduler(BUDGET)
    scheduler.add(job(0, 100, request="a"), now=0)
    scheduler.add(job(1, 100, request="b"), now=0)
    assert [j.id for j in scheduler.cancel("a")] == [0]
    assert [j.id for j in batch_of(scheduler, always).jobs] == [1]


@given(
    st.lists(st.tuples(st.integers(1, 1_200), st.sampled_from("abcdefgh")), max_size=60),
    st.sets(st.sampled_from("abcdefgh")),
)
def test_every_job_runs_once_within_the_budget(traffic, seatable):
    scheduler = Scheduler(BUDGET)
    for number, (frames, language) in enumerate(traffic):
        scheduler.add(job(number, frames, language), now=number)
    ran: list[int] = []
    for _ in range(len(traffic) + 1):
        oldest = next((j for j in scheduler._queue.values() if j.worn.name in seatable), None)
        batch = scheduler.next_batch(100.0, lambda worn: worn.name in seatable)
        if batch is None:
            assert oldest is None
            break
        assert oldest in batch.jobs, "the oldest job that can run is in the next batch: nothing starves"
        assert batch.padded_frames <= BUDGET.max_frames or len(batch.jobs) == 1
        assert len(batch.jobs) <= BUDGET.max_rows
        assert len({j.worn for j in batch.jobs}) <= BUDGET.max_adapters
        assert min(j.frames for j in batch.jobs) * 2 >= max(j.frames for j in batch.jobs)
        ran += [j.id for j in batch.jobs]
    assert sorted(ran) == [n for n, (_, language) in enumerate(traffic) if language in seatable]
