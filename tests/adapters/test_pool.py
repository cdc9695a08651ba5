"""A pool on a CPU costs what was written, and fills slots as they are."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from adapters.errors import BankFull
from adapters.pool import Pool
from benchmarks.memory import resident_bytes

SHAPES = {"up": (3, 5), "bias": (3,)}


def pool(limit: int, shapes: Mapping[str, tuple[int, ...]] = SHAPES, dtype: torch.dtype = torch.float32) -> Pool:
    return Pool(shapes, limit, torch.device("cpu"), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_slot_holds_what_it_was_filled_with_and_slot_0_zeros(dtype):
    made = pool(3, dtype=dtype)
    tensors = [{name: torch.randn(shape).half() for name, shape in SHAPES.items()} for _ in range(3)]
    slots = [made.take() for _ in tensors]
    for slot, each in zip(slots, tensors, strict=True):
        made.filling(slot, each)()
    for name, view in made.views.items():
        assert not view[0].any()
        for slot, each in zip(slots, tensors, strict=True):
            torch.testing.assert_close(view[slot], each[name].to(dtype), rtol=0, atol=0)


def test_low_slots_are_taken_first_and_none_twice():
    made = pool(4)
    assert [made.take() for _ in range(4)] == [1, 2, 3, 4]
    with pytest.raises(BankFull, match="all 4 slots"):
        made.take()
    for slot in (3, 1):
        made.give_back(slot)
    assert [made.take(), made.take()] == [1, 3]


def test_slots_that_were_never_written_cost_no_memory():
    shapes = {"up": (1 << 20,)}
    before = resident_bytes()
    made = pool(1_000, shapes)  # 4 GB, were it all written
    assert resident_bytes() - before < 50e6
    for _ in range(20):
        made.filling(made.take(), {"up": torch.ones(1 << 20)})()
    assert made.bytes == 20 * made.slot_bytes == 20 * (4 << 20)
    assert 60e6 < resident_bytes() - before < 150e6


def test_memory_of_the_next_large_slot_is_made_ahead():
    made = pool(2, {"up": (4 << 20,)})
    made.filling(made.take(), {"up": torch.ones(4 << 20)})()
    before = resident_bytes()
    made.preparation()()
    assert resident_bytes() - before > 0.9 * made.slot_bytes
    assert made.bytes == 2 * made.slot_bytes
    made.preparation()()
    assert resident_bytes() - before < 1.5 * made.slot_bytes, "one ahead"
    slot = made.take()
    assert slot == 2
    assert not made.views["up"][slot].any()
    made.preparation()()  # none is left to prepare
    made.give_back(1)
    made.preparation()()
    assert made.views["up"][1].all(), "written once: its memory is there"


def test_small_slots_are_not_made_ahead():
    made = pool(3)
    made.preparation()()
    assert made.bytes == 0


def test_more_address_space_than_there_is_is_refused():
    with pytest.raises(BankFull, match="lower the device slots"):
        pool(1 << 40, {"up": (1 << 20,)})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_section_picks_what_slots_hold_bit_by_bit(dtype):
    """Whatever the sizes, and whichever tensors lie beside it."""
    shapes = {"layers.0.a.x": (3, 5), "layers.0.b.y": (1,), "layers.2.a.x": (7,), "layers.2.b.y": (2, 2, 2)}
    made = pool(4, shapes, dtype)
    tensors = [{name: torch.randn(shape).to(dtype) for name, shape in shapes.items()} for _ in range(4)]
    tensors[1]["layers.2.a.x"][3] = torch.nan
    for each in tensors:
        made.filling(made.take(), each)()
    assert made.sections["layers.0.a.x"] is made.sections["layers.0.b.y"]
    assert made.sections["layers.0.a.x"] is not made.sections["layers.2.a.x"]
    slots = torch.tensor([2, 0, 4, 2])
    for name in shapes:
        picked = made.sections[name].pick(slots)
        assert picked.keys() == {other for other in shapes if other[:8] == name[:8]}
        wanted = torch.stack([tensors[1][name], torch.zeros_like(tensors[0][name]), tensors[3][name], tensors[1][name]])
        torch.testing.assert_close(picked[name], wanted, rtol=0, atol=0, equal_nan=True)
