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
from app.engine.residency import Residency, worn_of
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


def residency(files: Files, *, seats: int = 2, host_bytes: int = 1 << 20) -> Residency:
    bank = Bank(HIDDEN, LAYERS, limit=seats)
    return Residency(bank, files.load, max_seats=seats, max_host_bytes=host_bytes)


async def test_one_load_for_many_waiters():
    files = Files()
    files.gate.clear()
    tiers = residency(files)
    waiting = [asyncio.create_task(tiers.bind(adapter("es"))) for _ in range(20)]
    await asyncio.sleep(0.01)
    assert tiers.where(adapter("es"))[:2] == ("loading", "disk")
    files.gate.set()
    loaded = await asyncio.gather(*waiting)
    assert files.reads == ["es"]
    assert all(one is loaded[0] for one in loaded)
    assert tiers.where(adapter("es"))[:2] == ("ready", "host")


async def test_nobody_waits_for_anothers_load():
    files = Files()
    files.gate.clear()
    tiers = residency(files)
    stuck = asyncio.create_task(tiers.bind(adapter("slow")))
    while not files.reads:
        await asyncio.sleep(0)
    free = Files()
    tiers._load = free.load
    assert (await tiers.bind(adapter("fr"))).record.name == "fr"
    assert not stuck.done()
    files.gate.set()
    await stuck


async def test_a_waiter_that_goes_away_takes_nobodys_load_along():
    files = Files()
    files.gate.clear()
    tiers = residency(files)
    first, second = (asyncio.create_task(tiers.bind(adapter("es"))) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    files.gate.set()
    assert (await second).record.name == "es"
    assert files.reads == ["es"]
    tiers.unbind(worn_of(adapter("es")))


async def test_a_load_that_everyone_left_is_not_kept_beyond_the_bound():
    files = Files()
    files.gate.clear()
    tiers = residency(files, host_bytes=0)
    gone = asyncio.create_task(tiers.bind(adapter("es")))
    await asyncio.sleep(0.01)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    files.gate.set()
    while tiers.where(adapter("es"))[0] == "loading":
        await asyncio.sleep(0.001)
    assert tiers.where(adapter("es"))[:2] == ("stored", "disk")


async def test_the_longest_unused_leaves_its_seat():
    tiers = residency(Files(), seats=2)
    a, b, c = (adapter(name) for name in "abc")
    for one in (a, b, c):
        await tiers.bind(one)
    for one in (a, b, a):
        assert tiers.take(worn_of(one))
        tiers.release(worn_of(one))
    assert tiers.take(worn_of(c))
    assert [tiers.where(one)[1] for one in (a, b, c)] == ["device", "host", "device"]
    assert tiers.seats == 2


async def test_a_seat_that_a_batch_refers_to_is_never_given_away():
    tiers = residency(Files(), seats=2)
    a, b, c = (adapter(name) for name in "abc")
    for one in (a, b, c):
        await tiers.bind(one)
    assert tiers.take(worn_of(a))
    assert tiers.take(worn_of(a)), "two batches may wear it"
    assert tiers.take(worn_of(b))
    seat = tiers.seat(worn_of(a))
    assert not tiers.take(worn_of(c))
    tiers.release(worn_of(a))
    assert not tiers.take(worn_of(c)), "one reference is left"
    assert tiers.seat(worn_of(a)) is seat
    tiers.release(worn_of(b))
    assert tiers.take(worn_of(c))
    assert [tiers.where(one)[1] for one in (a, b, c)] == ["device", "host", "device"]


async def test_what_sits_is_what_was_loaded():
    tiers = residency(Files(), seats=2)
    for name in "abcabdcda":
        await tiers.bind(adapter(name))
        worn = worn_of(adapter(name))
        assert tiers.take(worn)
        dressed = tiers._bank.dress([tiers.seat(worn)])
        assert dressed.heads[0].pick("head.weight")[0, 0].item() == ord(name)
        tiers.release(worn)
        tiers.unbind(worn)


async def test_host_copies_stay_within_their_bytes_but_for_those_in_use():
    files = Files()
    tiers = residency(files, host_bytes=2 * BYTES)
    names = "abcd"
    for name in names:
        await tiers.bind(adapter(name))
    assert len(tiers._host) == 4, "four requests, four copies"
    for name in names:
        tiers.unbind(worn_of(adapter(name)))
    assert [worn.name for worn in tiers._host] == ["c", "d"]
    await tiers.bind(adapter("c"))
    await tiers.bind(adapter("a"))
    tiers.unbind(worn_of(adapter("a")))
    assert [worn.name for worn in tiers._host] == ["c", "a"], "the longest unused went"
    assert files.reads == list("abcda")


async def test_a_failed_load_is_told_and_may_be_tried_again():
    files = Files(broken={"es"})
    tiers = residency(files)
    for attempt in range(2):
        waiting = [tiers.bind(adapter("es")) for _ in range(3)]
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(one, AdapterCorrupt) for one in found)
        assert files.reads == ["es"] * (attempt + 1)
        assert tiers.where(adapter("es")) == ("failed", "disk", "weights are missing")
    files.broken.clear()
    assert (await tiers.bind(adapter("es"))).record.name == "es"
    assert tiers.where(adapter("es")) == ("ready", "host", None)
    tiers.unbind(worn_of(adapter("es")))
    assert not tiers._bound, "failed requests left no binding behind"


async def test_versions_of_one_name_sit_apart():
    files = Files()
    tiers = residency(files)
    old, new = adapter("es", "1"), adapter("es", "2")
    await tiers.bind(old)
    await tiers.bind(new)
    assert tiers.take(worn_of(old))
    assert tiers.take(worn_of(new))
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
    loaded = await tiers.bind(bound)
    await tiers.bind(other)
    store.remove("es")
    store.sweep(grace_s=-1)
    assert not (folder / "adapters" / "es").exists()
    registry.scan()
    for registered in (bound, other, bound):
        assert tiers.take(worn_of(registered))
        tiers.release(worn_of(registered))
    worn = tiers._bank.dress([tiers.seat(worn_of(bound))])
    bias = worn.heads[0].pick("head.bias")[: loaded.vocab.size]
    torch.testing.assert_close(bias, loaded.tensors["head.bias"])
    assert (await tiers.bind(bound)) is loaded
    for _ in range(2):
        tiers.unbind(worn_of(bound))
    with pytest.raises(AdapterError, match="missing"):
        await tiers.bind(bound)
