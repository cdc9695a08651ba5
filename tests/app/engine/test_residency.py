"""Who is on the device: seats that are taken, given away, closed and pinned."""

from __future__ import annotations

import asyncio
import time

import pytest

from adapters.bank import Bank
from app.engine.job import worn_of
from app.engine.residency import Residency
from app.engine.whereabouts import Whereabouts
from tests.app.engine.tiers import SIZE, Files, adapter, bind, residency, settled, take, taken

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_the_longest_unused_leaves_its_seat():
    tiers = residency(Files(), seats=2)
    a, b, c = (adapter(name) for name in "abc")
    for one in (a, b, c):
        await bind(tiers, one)
    for one in (a, b, a):
        assert await take(tiers, worn_of(one))
        tiers.release([(worn_of(one),)], 0.0)
    assert await take(tiers, worn_of(c))
    assert [tiers.where(one).where for one in (a, b, c)] == ["device", "host", "device"]
    assert tiers.seats == 2


async def test_a_seat_that_a_batch_refers_to_is_never_given_away():
    tiers = residency(Files(), seats=2)
    a, b, c = (adapter(name) for name in "abc")
    for one in (a, b, c):
        await bind(tiers, one)
    assert await take(tiers, worn_of(a))
    assert await take(tiers, worn_of(a)), "two batches may wear it"
    assert await take(tiers, worn_of(b))
    seat = tiers.seat(worn_of(a))
    assert not await take(tiers, worn_of(c))
    tiers.release([(worn_of(a),)], 0.0)
    assert not await take(tiers, worn_of(c)), "one reference is left"
    assert tiers.seat(worn_of(a)) is seat
    tiers.release([(worn_of(b),)], 0.0)
    assert await take(tiers, worn_of(c))
    assert [tiers.where(one).where for one in (a, b, c)] == ["device", "host", "device"]


async def test_what_sits_is_what_was_loaded():
    tiers = residency(Files(), seats=2)
    for name in "abcabdcda":
        await bind(tiers, adapter(name))
        worn = worn_of(adapter(name))
        assert await take(tiers, worn)
        dressed = tiers._bank.dress([tiers.seat(worn)])
        assert dressed.heads[0].one("head.weight")[0, 0].item() == ord(name)
        tiers.release([(worn,)], 0.0)
        tiers.let_go(worn)


async def test_versions_of_one_name_sit_apart():
    files = Files()
    tiers = residency(files)
    old, new = adapter("es", "1"), adapter("es", "2")
    await bind(tiers, old)
    await bind(tiers, new)
    assert await take(tiers, worn_of(old))
    assert await take(tiers, worn_of(new))
    assert tiers.seat(worn_of(old)).head != tiers.seat(worn_of(new)).head
    assert files.reads == ["es", "es"]


async def test_seating_waits_for_no_batch_and_no_batch_for_it():
    """Not seated at once: the batch goes on without it, and hears when it can be worn."""
    heard: list[str] = []
    files = Files()
    bank = Bank(SIZE, limit=2)
    tiers = Residency(bank, files.load, max_seats=2, max_host_bytes=1 << 20, on_seated=lambda: heard.append("seated"))
    await bind(tiers, adapter("es"))
    assert not taken(tiers, worn_of(adapter("es")), 0.0)
    while not heard:
        await asyncio.sleep(0.001)
    assert taken(tiers, worn_of(adapter("es")), 0.0)


async def test_seats_that_no_request_holds_go_first():
    tiers = residency(Files(), seats=2)
    held, free, new = (adapter(name) for name in "abc")
    for one in (free, held):  # the held one is the longest unused
        await bind(tiers, one)
    for one in (held, free):
        assert await take(tiers, worn_of(one))
    for one in (held, free):
        tiers.release([(worn_of(one),)], 0.0)
    tiers.let_go(worn_of(free))
    await bind(tiers, new)
    assert await take(tiers, worn_of(new))
    assert [tiers.where(one).where for one in (held, free, new)] == ["device", "host", "device"]


async def test_who_waits_too_long_has_a_seat_closed_for_him():
    """Two lanes whose batches always overlap: the seat is never unused, and yet it comes free."""
    tiers = residency(Files(), seats=1, patience_s=5.0)
    busy, late = worn_of(adapter("a")), worn_of(adapter("b"))
    for one in "ab":
        await bind(tiers, adapter(one))
    assert await take(tiers, busy)
    for now in (1.0, 5.9):
        assert taken(tiers, busy, now), "the next lane's batch"
        tiers.release([(busy,)], 0.0)
        assert not taken(tiers, late, now)
    assert not taken(tiers, late, 6.1)
    assert not taken(tiers, busy, 6.1), "closed: no new references"
    assert tiers.seats == 1, "what runs goes on"
    tiers.release([(busy,)], 0.0)
    await settled(tiers)
    assert taken(tiers, late, 7.0)
    tiers.release([(late,)], 7.0)
    assert await take(tiers, busy, 7.0), "and it goes round"


async def test_a_seat_is_not_closed_for_one_who_has_gone():
    tiers = residency(Files(), seats=1, patience_s=0.0)
    busy, late = worn_of(adapter("a")), worn_of(adapter("b"))
    for one in "ab":
        await bind(tiers, adapter(one))
    assert await take(tiers, busy)
    assert not taken(tiers, late, 1.0)
    assert not taken(tiers, busy, 1.0)
    tiers.let_go(late)
    assert taken(tiers, busy, 1.0)


async def test_what_is_pinned_never_leaves():
    tiers = residency(Files(), seats=2)
    pinned, *others = (adapter(name) for name in "abcd")
    await tiers.pin(pinned)
    assert tiers.where(pinned) == Whereabouts("ready", "device", pinned=True)
    for one in others:
        await bind(tiers, one)
        assert await take(tiers, worn_of(one))
        tiers.release([(worn_of(one),)], 0.0)
    assert tiers.where(pinned).where == "device"
    tiers.unpin(worn_of(pinned))
    for one in others:
        assert await take(tiers, worn_of(one))
        tiers.release([(worn_of(one),)], 0.0)
    assert tiers.where(pinned).where != "device"


async def test_what_no_longer_fits_beside_a_pin_makes_no_room_in_vain():
    """A request for three came before the one of them that is pinned had a newer version, and is heard after it."""
    tiers = residency(Files(), seats=3)
    first, second = adapter("es"), adapter("es", "2")
    await tiers.pin(first)
    for one in (first, *map(adapter, ["fr", "ru"])):
        await bind(tiers, one)
    three = tuple(map(worn_of, [first, adapter("fr"), adapter("ru")]))
    assert tiers.fits(three)
    assert await take(tiers, worn_of(adapter("fr")))
    tiers.release([(worn_of(adapter("fr")),)], 0.0)
    await tiers.pin(second)
    tiers.unpin(worn_of(first))
    assert not tiers.fits(three)
    assert not tiers.seatable(three, 0.0)
    for name in ("de", "it", "nl"):  # it never will be, and others come and go
        await bind(tiers, adapter(name))
        assert await take(tiers, worn_of(adapter(name)), now=100.0)
        tiers.release([(worn_of(adapter(name)),)], 100.0)


async def test_a_retired_version_goes_when_its_last_request_does():
    tiers = residency(Files(), seats=2)
    old = worn_of(adapter("es"))
    await bind(tiers, adapter("es"))
    assert await take(tiers, old)
    tiers.retire(old)
    assert tiers.where(adapter("es")).where == "device", "a batch wears it"
    tiers.release([(old,)], 0.0)
    assert tiers.where(adapter("es")).where == "device", "a request holds it"
    assert await take(tiers, old), "and may wear it again"
    tiers.release([(old,)], 0.0)
    tiers.let_go(old)
    assert tiers.where(adapter("es")) == Whereabouts("stored", "disk")
    assert tiers.seats == 0


async def test_who_cannot_be_seated_is_told(monkeypatch):
    told: list[tuple[str, str]] = []
    bank = Bank(SIZE, limit=2)
    tiers = Residency(
        bank,
        Files().load,
        max_seats=2,
        max_host_bytes=1 << 20,
        on_failure=lambda worn, error: told.append((worn.name, str(error))),
    )
    monkeypatch.setattr(bank, "seat", lambda *_: (_ for _ in ()).throw(RuntimeError("out of memory")))
    await bind(tiers, adapter("es"))
    assert not await take(tiers, worn_of(adapter("es")))
    assert told[0] == ("es", "out of memory")


async def test_a_batch_that_ends_costs_the_loop_little_however_many_wait():
    tiers = residency(Files(), seats=64, patience_s=1e9)
    seated, waiting = [
        [worn_of(adapter(f"{kind}{number}")) for number in range(64 * n)] for kind, n in (("s", 1), ("w", 2))
    ]
    for worn in seated + waiting:
        await bind(tiers, adapter(worn.name))
    for worn in seated:
        assert await take(tiers, worn)
        tiers.take((worn,))  # a batch that goes on
    for worn in waiting:
        assert not tiers.seatable((worn,), 0.0)
    began = time.thread_time()
    tiers.release([(worn,) for worn in seated], 0.0)
    assert time.thread_time() - began < 0.05
    assert not tiers._seating, "every seat is worn"
    began = time.thread_time()
    tiers.release([(worn,) for worn in seated], 0.0)
    assert time.thread_time() - began < 0.05
    await settled(tiers)
    assert all(taken(tiers, worn, 0.0) for worn in waiting[:64]), "who came first sits"


async def test_who_is_asked_about_later_takes_no_seat_from_who_was_promised_one():
    """Within one try to make a batch: a may be worn, b has waited too long, and c is new."""
    tiers = residency(Files(), seats=1, patience_s=0.0)
    a, b, c = (worn_of(adapter(name)) for name in "abc")
    for name in "abc":
        await bind(tiers, adapter(name))
    assert await take(tiers, a)
    assert not tiers.seatable((b,), 0.0)
    tiers.forget((b,))
    tiers.release([(a,)], 0.0)
    assert tiers.seatable((a,), 1.0)
    assert not tiers.seatable((b,), 1.0)
    assert not tiers.seatable((c,), 9.0)
    tiers.take((a,))
    tiers.serve(9.0, held=False)
    assert tiers.where(adapter("a")).where == "device"
