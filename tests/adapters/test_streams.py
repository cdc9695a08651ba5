"""Seats and batches on a device that runs its streams in any order that their events allow.

The bank is the real one; what it gives to a stream runs later, one random operation at a time. A batch looks at the
weights that it wears when its turn comes, and finds those of its own adapters or the order is wrong.
"""

from __future__ import annotations

import contextlib
import random
from collections import deque
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field
from functools import partial

import pytest
import torch
from torch import nn

from adapters.bank import Bank, Seat
from adapters.config import AdapterConfig, BackboneSize
from adapters.encoder import Worn
from adapters.pool import Pool
from adapters.shapes import expected_shapes
from adapters.streams import HostStream, Turns

HIDDEN, LAYERS, SEATS = 4, 2, 3
SIZE = BackboneSize(HIDDEN, LAYERS, 8)
CONFIGS = (AdapterConfig("bottleneck", 2, (1,), "adapted", 5), AdapterConfig("head", 0, (), "all", 5))


class Passed:
    """An event of the simulated device."""

    def __init__(self) -> None:
        self.passed = False

    def query(self) -> bool:
        return self.passed

    def synchronize(self) -> None:
        assert self.passed, "the host waits for nothing here"

    def elapsed_time(self, end_event: object) -> float:
        raise NotImplementedError

    def set(self) -> None:
        self.passed = True


class Queue:
    """A stream of the simulated device."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[Callable[[], object] | None, Passed | None]] = deque()

    def run(self, operation: Callable[[], object]) -> None:
        self.waiting.append((operation, None))

    def record(self) -> Passed:
        event = Passed()
        self.run(event.set)
        return event

    def wait(self, event: object) -> None:
        assert isinstance(event, Passed)
        self.waiting.append((None, event))

    @property
    def next_may_run(self) -> bool:
        return bool(self.waiting) and (self.waiting[0][1] is None or self.waiting[0][1].passed)

    def step(self) -> None:
        operation, _ = self.waiting.popleft()
        if operation is not None:
            operation()


@dataclass
class Device:
    """Both streams, the bank on them, and what batches found that they should not have found."""

    turns: type[Turns]
    chance: random.Random
    seats: list[tuple[Seat, float]] = field(default_factory=list)
    seated: int = 0
    violations: int = 0
    batches: int = 0

    def __post_init__(self) -> None:
        self.compute, self.seating = Queue(), Queue()
        self.bank = Bank(SIZE, SEATS, order=self.turns(self.compute, self.seating))

    def play(self, steps: int) -> None:
        """Whatever a host may do, in any order, while the device lags behind."""
        for _ in range(steps):
            self.chance.choice([self.seat, self.unseat, self.batch, self.batch, self.lag])()
        while self.compute.waiting or self.seating.waiting:
            assert self.compute.next_may_run or self.seating.next_may_run, "each waits for the other"
            self.run_one()

    def seat(self) -> None:
        if len(self.seats) == SEATS:
            return
        self.seated += 1
        config = self.chance.choice(CONFIGS)
        shapes = expected_shapes(config, SIZE)
        value = float(self.seated)
        tensors = {name: torch.full(shape, value) for name, shape in shapes.items()}
        self.seats.append((self.bank.seat(config, tensors), value))

    def unseat(self) -> None:
        if self.seats:
            seat, _ = self.seats.pop(self.chance.randrange(len(self.seats)))
            self.bank.unseat(seat)

    def batch(self) -> None:
        if not self.seats:
            return
        drawn = self.chance.choices(self.seats, k=self.chance.randint(1, 4))
        chosen, values = [seat for seat, _ in drawn], [value for _, value in drawn]
        with self.bank.reading(chosen):
            fixed = self.chance.random() < 0.5
            worn = self.bank.dress_fixed(chosen, 6) if fixed else self.bank.dress(chosen)
            for _ in range(2):
                self.compute.run(partial(self.look, worn, values, 6 if fixed else len(chosen)))

    def look(self, worn: Worn, values: list[float], rows: int) -> None:
        """With nothing coming in, a norm and a head give their biases: the number of the adapter."""
        x = torch.zeros(rows, 1, HIDDEN)
        found = torch.cat([worn.head(x)[:, :, :5], worn.norm(1, "layer_norm", nn.LayerNorm(HIDDEN), x)], dim=2)
        self.batches += 1
        wrong = [not torch.equal(row, torch.full_like(row, value)) for row, value in zip(found, values, strict=False)]
        self.violations += any(wrong)

    def lag(self) -> None:
        for _ in range(self.chance.randint(1, 6)):
            self.run_one()

    def run_one(self) -> None:
        ready = [queue for queue in (self.compute, self.seating) if queue.next_may_run]
        if ready:
            self.chance.choice(ready).step()


class WritesAtOnce(Turns):
    """Does not let the seating wait for who still reads."""

    def write(self, slot: Hashable, operation: Callable[[], object]) -> None:
        self._read.pop(slot, None)
        super().write(slot, operation)


class ReadsAtOnce(Turns):
    """Does not let a batch wait for the seating."""

    def ready(self, slots: Collection[Hashable]) -> None:
        pass


@torch.no_grad()
def violations(turns: type[Turns], games: int) -> int:
    found = batches = 0
    for seed in range(games):
        device = Device(turns, random.Random(seed))
        device.play(60)
        found += device.violations
        batches += device.batches
    assert batches > 10 * games, "nothing was looked at"
    return found


def test_batches_find_their_own_adapters_however_far_the_device_lags_behind():
    assert violations(Turns, games=60) == 0


@pytest.mark.parametrize("mutant", [WritesAtOnce, ReadsAtOnce])
def test_without_one_of_the_two_waits_they_do_not(mutant):
    """The test of the test."""
    assert violations(mutant, games=60) > 0


def test_a_batch_that_could_be_given_only_in_part_keeps_its_slots_too():
    device = Device(Turns, random.Random(0))
    device.seat()
    ((seat, _),) = device.seats
    with contextlib.suppress(RuntimeError), device.bank.reading([seat]):
        device.compute.run(lambda: None)
        raise RuntimeError("out of memory")
    device.bank.unseat(seat)
    taken = [device.bank.seat(seat.config, zeros(seat.config)) for _ in range(SEATS)]
    assert seat.slots[0] in [other.slots[0] for other in taken]
    while device.seating.next_may_run:
        device.seating.step()
    assert device.seating.waiting, "the slot is written only when the batch, or what there is of it, has run"
    while device.compute.next_may_run:
        device.compute.step()
    assert device.seating.next_may_run


def test_pools_that_nobody_sits_in_make_room_once_the_device_is_done_with_them(monkeypatch):
    device = Device(Turns, random.Random(0))
    ran: list[str] = []

    def wait(event: Passed) -> None:
        while not event.passed:
            device.run_one()
        ran.append("waited")

    def full(*given: object) -> Pool:
        """No memory before something was waited for."""
        if "waited" not in ran:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Pool(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(Passed, "synchronize", wait)
    old, new = CONFIGS[0], AdapterConfig("head", 0, (), "none", 40)
    seats = [device.bank.seat(config, zeros(config)) for config in (old, CONFIGS[1])]
    monkeypatch.setattr("adapters.bank.Pool", full)
    before = device.bank.bytes
    with pytest.raises(torch.OutOfMemoryError):
        device.bank.seat(new, zeros(new))
    assert (ran, device.bank.bytes) == ([], before), "all of them are sat in"
    with device.bank.reading(seats[:1]):
        device.compute.run(partial(ran.append, "read"))
    device.bank.unseat(seats[0])
    device.seating.run(partial(ran.append, "written"))
    device.bank.seat(new, zeros(new))
    assert sorted(ran[:-1]) == ["read", "waited", "written"]
    assert ran[-1] == "waited"
    gone = {key for key, _ in device.bank.dropped()}
    assert gone == {slot[0] for slot in seats[0].slots} - {slot[0] for slot in seats[1].slots}
    assert len(gone) == 2
    assert device.bank.dropped() == []


def zeros(config: AdapterConfig) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(shape) for name, shape in expected_shapes(config, SIZE).items()}


def test_a_cpu_has_run_what_it_was_given():
    ran: list[str] = []
    turns = Turns.on(torch.device("cpu"))
    began = turns.compute.record()
    turns.write("slot", partial(ran.append, "written"))
    turns.ready(["slot"])
    with turns.reading(["slot"]):
        turns.compute.run(partial(ran.append, "read"))
    done = turns.compute.record()
    assert ran == ["written", "read"]
    assert done.query()
    assert began.elapsed_time(done) >= 0
    assert isinstance(turns.seating, HostStream)
