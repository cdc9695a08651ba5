"""Who is on the device, who in host memory: with a bank of small tensors and files that tests open and close."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from adapters.bank import Bank
from adapters.config import AdapterConfig
from adapters.errors import AdapterCorrupt, AdapterError
from adapters.record import AdapterRecord, StoredFile
from adapters.registry import RegisteredAdapter, Registry
from adapters.shapes import expected_shapes
from adapters.store import AdapterStore, LoadedAdapter
from adapters.vocab import Vocab
from app.engine.job import Worn
from app.engine.residency import Residency, worn_of
from app.engine.whereabouts import Whereabouts
from tests.builders import make_model

pytestmark = pytest.mark.anyio

CONFIG = AdapterConfig("bottleneck", 2, (1,), "adapted", 4)
HIDDEN, LAYERS = 8, 2
BYTES = sum(4 * torch.Size(shape).numel() for shape in expected_shapes(CONFIG, HIDDEN, LAYERS).values())
NOWHERE = AdapterStore(Path("/nowhere"))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def adapter(name: str, version: str = "1") -> RegisteredAdapter:
    """A registered adapter; ``version`` makes it another one under the same name."""
    file = StoredFile.of("weights", "safetensors", version.encode())
    return RegisteredAdapter(AdapterRecord(name, "es", CONFIG, file, file, "float32"), NOWHERE)


@dataclass
class Files:
    """What would be read from disk, counted; ``gate`` keeps readers waiting, ``broken`` names fail."""

    reads: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def load(self, registered: RegisteredAdapter) -> LoadedAdapter:
        self.reads.append(registered.name)
        assert self.gate.wait(10)
        if registered.name in self.broken:
            raise AdapterCorrupt(registered.name, "weights are missing")
        value = float(sum(registered.name.encode()))
        shapes = expected_shapes(CONFIG, HIDDEN, LAYERS)
        tensors = {name: torch.full(shape, value) for name, shape in shapes.items()}
        return LoadedAdapter(registered.record, tensors, Vocab(("<pad>", "|", "a", "b")))


def residency(files: Files, *, seats: int = 2, host_bytes: int = 1 << 20, patience_s: float = 1.0) -> Residency:
    bank = Bank(HIDDEN, LAYERS, limit=seats)
    return Residency(bank, files.load, max_seats=seats, max_host_bytes=host_bytes, patience_s=patience_s)


async def bind(tiers: Residency, registered: RegisteredAdapter) -> LoadedAdapter:
    """What a request does that comes for this version."""
    worn = tiers.hold(registered)
    try:
        return await tiers.loaded(worn)
    except BaseException:
        tiers.let_go(worn)
        raise


async def take(tiers: Residency, worn: Worn, now: float = 0.0) -> bool:
    """What a lane does that has nothing else to do: ask, let others be seated, and ask again."""
    if not tiers.seatable((worn,), now):
        tiers.serve(now)
        await settled(tiers)
    return taken(tiers, worn, now)


def taken(tiers: Residency, worn: Worn, now: float) -> bool:
    """What a lane does that has other things to do, too."""
    if not tiers.seatable((worn,), now):
        tiers.serve(now, held=False)
        return False
    tiers.take((worn,))
    return True


async def settled(tiers: Residency) -> None:
    while tiers._seating:
        await asyncio.gather(*tiers._seating.values())


async def test_one_load_for_many_waiters():
    files = Files()
    files.gate.clear()
    tiers = residency(files)
    waiting = [asyncio.create_task(bind(tiers, adapter("es"))) for _ in range(20)]
    await asyncio.sleep(0.01)
    assert tiers.where(adapter("es")) == Whereabouts("loading", "disk")
    files.gate.set()
    loaded = await asyncio.gather(*waiting)
    assert files.reads == ["es"]
    assert all(one is loaded[0] for one in loaded)
    assert tiers.where(adapter("es")) == Whereabouts("ready", "host")


async def test_nobody_waits_for_anothers_load():
    files = Files()
    files.gate.clear()
    tiers = residency(files)
    stuck = asyncio.create_task(bind(tiers, adapter("slow")))
    while not files.reads:
        await asyncio.sleep(0)
    free = Files()
    tiers._load = free.load
    assert (await bind(tiers, adapter("fr"))).record.name == "fr"
    assert not stuck.done()
    files.gate.set()
    await stuck


async def test_a_waiter_that_goes_away_takes_nobodys_load_along():
    files = Files()
    files.gate.clear()
    tiers = residency(files)
    first, second = (asyncio.create_task(bind(tiers, adapter("es"))) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    files.gate.set()
    assert (await second).record.name == "es"
    assert files.reads == ["es"]
    tiers.let_go(worn_of(adapter("es")))


async def test_a_load_that_everyone_left_is_not_kept_beyond_the_bound():
    files = Files()
    files.gate.clear()
    tiers = residency(files, host_bytes=0)
    gone = asyncio.create_task(bind(tiers, adapter("es")))
    await asyncio.sleep(0.01)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    files.gate.set()
    while tiers.where(adapter("es")).state == "loading":
        await asyncio.sleep(0.001)
    assert tiers.where(adapter("es")) == Whereabouts("stored", "disk")


async def test_the_longest_unused_leaves_its_seat():
    tiers = residency(Files(), seats=2)
    a, b, c = (adapter(name) for name in "abc")
    for one in (a, b, c):
        await bind(tiers, one)
    for one in (a, b, a):
        assert await take(tiers, worn_of(one))
        tiers.release((worn_of(one),), 0.0)
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
    tiers.release((worn_of(a),), 0.0)
    assert not await take(tiers, worn_of(c)), "one reference is left"
    assert tiers.seat(worn_of(a)) is seat
    tiers.release((worn_of(b),), 0.0)
    assert await take(tiers, worn_of(c))
    assert [tiers.where(one).where for one in (a, b, c)] == ["device", "host", "device"]


async def test_what_sits_is_what_was_loaded():
    tiers = residency(Files(), seats=2)
    for name in "abcabdcda":
        await bind(tiers, adapter(name))
        worn = worn_of(adapter(name))
        assert await take(tiers, worn)
        dressed = tiers._bank.dress([tiers.seat(worn)])
        assert dressed.heads[0].pick("head.weight")[0, 0].item() == ord(name)
        tiers.release((worn,), 0.0)
        tiers.let_go(worn)


async def test_host_copies_stay_within_their_bytes_but_for_those_in_use():
    files = Files()
    tiers = residency(files, host_bytes=2 * BYTES)
    names = "abcd"
    for name in names:
        await bind(tiers, adapter(name))
    assert len(tiers._host) == 4, "four requests, four copies"
    for name in names:
        tiers.let_go(worn_of(adapter(name)))
    assert [worn.name for worn in tiers._host] == ["c", "d"]
    await bind(tiers, adapter("c"))
    await bind(tiers, adapter("a"))
    tiers.let_go(worn_of(adapter("a")))
    assert [worn.name for worn in tiers._host] == ["c", "a"], "the longest unused went"
    assert files.reads == list("abcda")


async def test_a_failed_load_is_told_and_may_be_tried_again():
    files = Files(broken={"es"})
    tiers = residency(files)
    for attempt in range(2):
        waiting = [bind(tiers, adapter("es")) for _ in range(3)]
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(one, AdapterCorrupt) for one in found)
        assert files.reads == ["es"] * (attempt + 1)
        assert tiers.where(adapter("es")) == Whereabouts("failed", "disk", reason="weights are missing")
    files.broken.clear()
    assert (await bind(tiers, adapter("es"))).record.name == "es"
    assert tiers.where(adapter("es")) == Whereabouts("ready", "host")
    tiers.let_go(worn_of(adapter("es")))
    assert not tiers._held, "failed requests left no binding behind"


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


async def test_a_version_stays_bound_although_its_files_go(tmp_path):
    """With a real store: unpublished and swept away while a request is bound to it, and its seat taken meanwhile."""
    folder = make_model(tmp_path)
    store = AdapterStore(folder / "adapters")
    fingerprint = store.record("es").fingerprint or ""
    registry = Registry([store], fingerprint, 48, 4)
    tiers = Residency(Bank(48, 4, limit=1), registry.load, max_seats=1, max_host_bytes=0)
    bound, other = registry.resolve(language="es"), registry.resolve(language="fr")
    loaded = await bind(tiers, bound)
    await bind(tiers, other)
    store.remove("es")
    store.sweep(grace_s=-1)
    assert not (folder / "adapters" / "es").exists()
    registry.scan()
    for registered in (bound, other, bound):
        assert await take(tiers, worn_of(registered))
        tiers.release((worn_of(registered),), 0.0)
    worn = tiers._bank.dress([tiers.seat(worn_of(bound))])
    bias = worn.heads[0].pick("head.bias")[: loaded.vocab.size]
    torch.testing.assert_close(bias, loaded.tensors["head.bias"])
    assert (await bind(tiers, bound)) is loaded
    for _ in range(2):
        tiers.let_go(worn_of(bound))
    with pytest.raises(AdapterError, match="missing"):
        await bind(tiers, bound)


async def test_seating_waits_for_no_batch_and_no_batch_for_it():
    """Not seated at once: the batch goes on without it, and hears when it can be worn."""
    heard: list[str] = []
    files = Files()
    bank = Bank(HIDDEN, LAYERS, limit=2)
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
        tiers.release((worn_of(one),), 0.0)
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
        tiers.release((busy,), 0.0)
        assert not taken(tiers, late, now)
    assert not taken(tiers, late, 6.1)
    assert not taken(tiers, busy, 6.1), "closed: no new references"
    assert tiers.seats == 1, "what runs goes on"
    tiers.release((busy,), 0.0)
    await settled(tiers)
    assert taken(tiers, late, 7.0)
    tiers.release((late,), 7.0)
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
        tiers.release((worn_of(one),), 0.0)
    assert tiers.where(pinned).where == "device"
    tiers.unpin(worn_of(pinned))
    for one in others:
        assert await take(tiers, worn_of(one))
        tiers.release((worn_of(one),), 0.0)
    assert tiers.where(pinned).where != "device"


async def test_a_retired_version_goes_when_its_last_request_does():
    tiers = residency(Files(), seats=2)
    old = worn_of(adapter("es"))
    await bind(tiers, adapter("es"))
    assert await take(tiers, old)
    tiers.retire(old)
    assert tiers.where(adapter("es")).where == "device", "a batch wears it"
    tiers.release((old,), 0.0)
    assert tiers.where(adapter("es")).where == "device", "a request holds it"
    assert await take(tiers, old), "and may wear it again"
    tiers.release((old,), 0.0)
    tiers.let_go(old)
    assert tiers.where(adapter("es")) == Whereabouts("stored", "disk")
    assert tiers.seats == 0


async def test_who_cannot_be_seated_is_told(monkeypatch):
    told: list[tuple[str, str]] = []
    bank = Bank(HIDDEN, LAYERS, limit=2)
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


async def test_who_is_asked_about_later_takes_no_seat_from_who_was_promised_one():
    """Within one try to make a batch: a may be worn, b has waited too long, and c is new."""
    tiers = residency(Files(), seats=1, patience_s=0.0)
    a, b, c = (worn_of(adapter(name)) for name in "abc")
    for name in "abc":
        await bind(tiers, adapter(name))
    assert await take(tiers, a)
    assert not tiers.seatable((b,), 0.0)
    tiers.forget((b,))
    tiers.release((a,), 0.0)
    assert tiers.seatable((a,), 1.0)
    assert not tiers.seatable((b,), 1.0)
    assert not tiers.seatable((c,), 9.0)
    tiers.take((a,))
    tiers.serve(9.0, held=False)
    assert tiers.where(adapter("a")).where == "device"
