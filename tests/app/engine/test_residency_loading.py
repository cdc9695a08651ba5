"""From disk to host memory: one load for all who wait, copies within their bytes, and versions that stay bound."""

from __future__ import annotations

import asyncio
import errno
import gc
import traceback
import weakref

import pytest
import torch

from adapters.bank import Bank
from adapters.config import BackboneSize
from adapters.errors import AdapterAway, AdapterCorrupt, AdapterError
from adapters.registry import Registry
from adapters.store import AdapterStore
from app.engine.job import worn_of
from app.engine.residency import Residency
from app.engine.whereabouts import Whereabouts
from tests.app.engine.tiers import AFAR, BYTES, NOWHERE, Clock, Files, adapter, bind, residency, take
from tests.builders import make_model

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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
    tiers._copies._load = free.load
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


async def test_host_copies_stay_within_their_bytes_but_for_those_in_use():
    files = Files()
    tiers = residency(files, host_bytes=2 * BYTES)
    names = "abcd"
    for name in names:
        await bind(tiers, adapter(name))
    assert len(tiers._copies._copies) == 4, "four requests, four copies"
    for name in names:
        tiers.let_go(worn_of(adapter(name)))
    assert [worn.name for worn in tiers._copies._copies] == ["c", "d"]
    await bind(tiers, adapter("c"))
    await bind(tiers, adapter("a"))
    tiers.let_go(worn_of(adapter("a")))
    assert [worn.name for worn in tiers._copies._copies] == ["d", "c", "a"], "one that is in use does not count"
    tiers.let_go(worn_of(adapter("c")))
    assert [worn.name for worn in tiers._copies._copies] == ["c", "a"], "the longest unused went"
    assert files.reads == list("abcda")


async def test_the_copy_of_what_is_seated_stays_and_goes_with_its_seat():
    """Else requests for an adapter that is on the device read its file again and again."""
    files = Files()
    tiers = residency(files, seats=2, host_bytes=BYTES)
    for _ in range(3):
        for name in ("es", "fr"):
            await bind(tiers, adapter(name))
            worn = worn_of(adapter(name))
            assert await take(tiers, worn)
            tiers.release([(worn,)], now=0.0)
            tiers.let_go(worn)
    assert files.reads == ["es", "fr"]
    for name in ("de", "it", "nl", "ru"):  # two seats and the bytes of one
        await bind(tiers, adapter(name))
        worn = worn_of(adapter(name))
        assert await take(tiers, worn)
        tiers.release([(worn,)], now=0.0)
        tiers.let_go(worn)
    known = ("es", "fr", "de", "it", "nl", "ru")
    assert [tiers.where(adapter(name)).where for name in known] == ["disk"] * 3 + ["host", "device", "device"]
    assert tiers._copies._bytes == BYTES


async def test_a_failed_load_is_told_at_once_until_it_is_time_to_try_again():
    files, clock = Files(broken={"es"}), Clock()
    tiers = residency(files, clock=clock)
    for attempt, wait_s in enumerate((1.0, 2.0, 4.0)):
        for now in (clock.now, clock.now + 0.9 * wait_s):
            clock.now = now
            waiting = [bind(tiers, adapter("es")) for _ in range(3)]
            found = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(one, AdapterCorrupt) for one in found)
            assert files.reads == ["es"] * (attempt + 1), "read once for all who came meanwhile"
            assert tiers.where(adapter("es")) == Whereabouts("failed", "disk", reason="weights are missing")
        clock.now += 0.2 * wait_s
    files.broken.clear()
    assert (await bind(tiers, adapter("es"))).record.name == "es"
    assert tiers.where(adapter("es")) == Whereabouts("ready", "host")
    tiers.let_go(worn_of(adapter("es")))
    assert not tiers._held, "failed requests left no binding behind"


async def test_what_failed_holds_nothing_of_those_who_asked():
    """Their frames hold their audio, and what was read before it failed."""
    files, asked, raised = Files(broken={"es"}), [], []
    tiers = residency(files)

    class Audio:
        pass

    async def ask() -> None:
        audio = Audio()
        asked.append(weakref.ref(audio))
        try:
            await bind(tiers, adapter("es"))
        except AdapterCorrupt as error:
            raised.append(len(list(traceback.walk_tb(error.__traceback__))))

    for _ in range(20):
        await ask()
    assert len(set(raised[1:])) == 1, "it does not grow"
    failure = tiers._copies.failure(worn_of(adapter("es")))
    assert failure is not None
    assert (failure.__traceback__, failure.__cause__, failure.__context__) == (None, None, None)
    await asyncio.sleep(0)  # the loop lets go of what it has just handed over
    gc.collect()
    assert not [one for one in asked if one() is not None]


async def test_a_shortage_of_the_machine_passes():
    """What could not be read for it is not called broken: who asks is told to ask again."""
    files = Files()
    corrupt = AdapterCorrupt("es", "weights cannot be read: Too many open files")
    corrupt.__cause__ = OSError(errno.EMFILE, "Too many open files")
    files.bugs["es"] = corrupt
    with pytest.raises(AdapterAway, match="Too many open files"):
        await bind(residency(files), adapter("es"))


@pytest.mark.parametrize("far", [False, True])
async def test_whatever_is_raised_is_the_adapters_failure(far, caplog):
    files, clock = Files(bugs={"es": RuntimeError("no such block: https://cdn/x?sig=secret")}), Clock()
    tiers = residency(files, clock=clock)
    registered = adapter("es", store=AFAR if far else NOWHERE)
    for now in (0.0, 0.5, 1.1, 3.2):
        clock.now = now
        with pytest.raises(
            AdapterAway if far else AdapterCorrupt, match=r"RuntimeError: no such block: https://cdn/x$"
        ):
            await bind(tiers, registered)
        assert tiers.where(registered).state == "failed"
    assert files.reads == ["es"] * 3, "with back-off"
    assert caplog.text.count("Traceback") == 1
    assert (await bind(tiers, adapter("fr"))).record.name == "fr"
    files.bugs.clear()
    clock.now = 60.0
    assert (await bind(tiers, registered)).record.name == "es"


async def test_who_publishes_does_not_wait_for_the_next_try():
    files = Files(broken={"es"})
    tiers = residency(files)
    with pytest.raises(AdapterCorrupt):
        await bind(tiers, adapter("es"))
    files.broken.clear()
    await tiers.prepare(adapter("es"), seated=False)
    assert (await bind(tiers, adapter("es"))).record.name == "es"


async def test_what_is_fetched_is_remote_until_it_is_there():
    files = Files()
    files.gate.clear()
    tiers = residency(files)
    far = adapter("es", store=AFAR)
    assert tiers.where(far) == Whereabouts("remote", "remote")
    waiting = asyncio.create_task(bind(tiers, far))
    await asyncio.sleep(0.01)
    assert tiers.where(far) == Whereabouts("loading", "remote")
    files.gate.set()
    await waiting
    assert tiers.where(far) == Whereabouts("ready", "host")


@pytest.mark.parametrize("elsewhere", [None, "memory://elsewhere"], ids=["a folder", "another remote store"])
async def test_nobody_waits_for_another_stores_network(elsewhere):
    """However many adapters are on their way from a store that does not answer."""
    slow = Files()
    slow.gate.clear()
    tiers = residency(slow)
    stuck = [asyncio.create_task(bind(tiers, adapter(f"far-{number}", store=AFAR))) for number in range(20)]
    await asyncio.sleep(0.05)
    tiers._copies._load = Files().load
    near = adapter("fr") if elsewhere is None else adapter("fr", store=AdapterStore.at(elsewhere))
    assert (await asyncio.wait_for(bind(tiers, near), 5)).record.name == "fr"
    assert not any(task.done() for task in stuck)
    slow.gate.set()
    await asyncio.gather(*stuck)


async def test_what_is_being_read_at_the_end_is_not_waited_for():
    files = Files()
    files.gate.clear()
    tiers = residency(files)
    stuck = [asyncio.create_task(bind(tiers, adapter(f"far-{number}", store=AFAR))) for number in range(20)]
    await asyncio.sleep(0.05)
    await asyncio.wait_for(tiers.stop(), 5)
    found = await asyncio.wait_for(asyncio.gather(*stuck, return_exceptions=True), 5)
    assert all(isinstance(one, asyncio.CancelledError) for one in found)
    files.gate.set()
    assert len(files.reads) < 20, "those that had not begun never do"


async def test_a_version_stays_bound_although_its_files_go(tmp_path):
    """With a real store: unpublished and swept away while a request is bound to it, and its seat taken meanwhile."""
    folder = make_model(tmp_path)
    store = AdapterStore(folder / "adapters")
    fingerprint = store.record("es").fingerprint or ""
    registry = Registry([store], fingerprint, BackboneSize(48, 4, 96))
    tiers = Residency(Bank(BackboneSize(48, 4, 96), limit=1), registry.load, max_seats=1, max_host_bytes=0)
    bound, other = registry.resolve(language="es"), registry.resolve(language="fr")
    loaded = await bind(tiers, bound)
    await bind(tiers, other)
    store.remove("es")
    store.sweep(grace_s=-1)
    assert not (folder / "adapters" / "es").exists()
    registry.scan()
    for registered in (bound, other, bound):
        assert await take(tiers, worn_of(registered))
        tiers.release([(worn_of(registered),)], 0.0)
    worn = tiers._bank.dress([tiers.seat(worn_of(bound))])
    bias = worn.heads[0].one("head.bias")[: loaded.vocab.size]
    torch.testing.assert_close(bias, loaded.tensors["head.bias"])
    assert (await bind(tiers, bound)) is loaded
    for _ in range(2):
        tiers.let_go(worn_of(bound))
    assert tiers.at_hand(worn_of(bound)), "with its seat"
    assert await take(tiers, worn_of(other))
    with pytest.raises(AdapterError, match="missing"):
        await bind(tiers, bound)
