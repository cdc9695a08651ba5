"""Stores that are slow or away: what was seen last stands, and nobody waits for them."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator

import pytest

from adapters import registry as registry_module
from adapters.errors import StoreAway, UnknownLanguage
from adapters.registry import Registry
from adapters.shelf import _MOST_UNREAD, RefusedAdapter, RegisteredAdapter, RemoteShelf
from adapters.store import AdapterStore
from tests.adapters.places import Faulty, in_memory, put
from tests.adapters.published import FINGERPRINT, SIZE, publish


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def far() -> AdapterStore:
    """A remote store with an adapter, that can be made faulty."""
    location = Faulty(AdapterStore.at(in_memory()).location)
    store = AdapterStore(location)
    publish(store)
    location.calls.clear()
    return store


def seen(shelf: RemoteShelf) -> list[str]:
    """What is found once the look that this begins is through."""
    shelf.found()
    shelf.wait(10)
    return list(shelf.found())


def test_who_asks_does_not_wait_and_is_told_what_was_seen_last(far):
    shelf = RemoteShelf(far, FINGERPRINT, SIZE, clock=(clock := Clock()))
    assert seen(shelf) == ["de"]
    assert far.location.calls == ["records", "read"]
    publish(far, "fr", language="fr")
    assert seen(shelf) == ["de"], "not yet time to look"
    clock.now = 1.9
    assert seen(shelf) == ["de"]
    clock.now = 2.1
    far.location.calls.clear()
    assert seen(shelf) == ["de", "fr"]
    assert far.location.calls == ["records", "read"], "only what is new is read"


def test_what_was_there_stands_while_the_store_is_away(far, caplog):
    shelf = RemoteShelf(far, FINGERPRINT, SIZE, clock=(clock := Clock()))
    assert seen(shelf) == ["de"]
    far.location.away = True
    looks: list[float] = []
    with caplog.at_level(logging.INFO, "tongues.adapters"):
        for tenth in range(21, 1500):
            clock.now = tenth / 10
            far.location.calls.clear()
            assert seen(shelf) == ["de"]
            looks += [clock.now] * bool(far.location.calls)
        assert looks == [2.1, 4.1, 8.1, 16.1, 32.1, 64.1, 124.1]
        assert shelf.away == "it is gone"
        assert [record.getMessage() for record in caplog.records] == [
            "what was seen last of a store stands: it is gone"
        ], "once"
        far.location.away = False
        clock.now = 184.2
        assert seen(shelf) == ["de"]
    assert shelf.away is None
    assert "is there again" in caplog.text


def test_a_look_that_is_cut_off_tells_what_it_saw_and_goes_on_where_it_was(far):
    for number in range(80):
        publish(far, f"de-{number}")
    far.location.calls.clear()
    far.location.step = 20
    shelf = RemoteShelf(far, FINGERPRINT, SIZE, clock=(clock := Clock()))
    read = 20 - 1
    found = seen(shelf)
    assert sum(isinstance(shelf.found()[name], RegisteredAdapter) for name in found) == read
    assert far.location.calls.count("read") < read + 2 * _MOST_UNREAD, (
        "a store that is away is not asked for everything"
    )
    assert shelf.away == "it is gone"
    far.location.calls.clear()
    far.location.step = -1
    clock.now = 2.1
    assert len(seen(shelf)) == 81
    assert far.location.calls.count("read") == 81 - read
    assert all(isinstance(one, RegisteredAdapter) for one in shelf.found().values())


class Forbidden(Faulty):
    """Does not show what is called secret, from when a test says so."""

    secret: bool = False

    def read(self, name, file, max_bytes):
        if self.secret and name == "secret":
            raise StoreAway("the store cannot be reached: An error occurred (403): AccessDenied")
        return self.location.read(name, file, max_bytes)


@pytest.mark.parametrize("known", [False, True])
def test_one_record_that_cannot_be_read_hides_no_other(far, known, caplog):
    far = AdapterStore(Forbidden(far.location.location))
    version = publish(far, "secret").version
    far.location.secret = not known
    shelf = RemoteShelf(far, FINGERPRINT, SIZE, clock=(clock := Clock()))
    assert seen(shelf) == ["de", "secret"]
    if known:
        publish(far, "secret", seed=1)
        far.location.secret = True
        publish(far, "fr", language="fr")
    for look in range(1, 4):
        clock.now = 2.1 * look
        assert seen(shelf) == (["de", "fr", "secret"] if known else ["de", "secret"])
        assert isinstance(shelf.found()["de"], RegisteredAdapter)
        secret = shelf.found()["secret"]
        if isinstance(secret, RegisteredAdapter):
            assert known
            assert secret.record.version == version, "what was known of it stands"
        else:
            assert not known
            assert "AccessDenied" in secret.error.reason
        assert "AccessDenied" in (shelf.away or "")
    assert caplog.text.count("the record of secret in") == 1
    far.location.secret = False
    clock.now = 9.0
    seen(shelf)
    assert shelf.found()["secret"] == RegisteredAdapter(far.record("secret"), far)
    assert shelf.away is None


def test_a_store_that_never_changes_is_looked_at_once(far, monkeypatch):
    monkeypatch.setattr(AdapterStore, "pace_s", math.inf)
    shelf = RemoteShelf(far, FINGERPRINT, SIZE, clock=(clock := Clock()))
    far.location.away = True
    assert seen(shelf) == []
    far.location.away = False
    clock.now = 2.1
    assert seen(shelf) == ["de"]
    far.location.calls.clear()
    clock.now = 1e9
    assert seen(shelf) == ["de"]
    assert far.location.calls == []


def test_a_refused_object_is_read_again_when_it_is_put_again(far):
    put(far, "bad", "adapter.json", b"{")
    shelf = RemoteShelf(far, FINGERPRINT, SIZE, clock=(clock := Clock()))
    assert seen(shelf) == ["bad", "de"]
    assert isinstance(shelf.found()["bad"], RefusedAdapter)
    far.location.calls.clear()
    clock.now = 3.0
    seen(shelf)
    assert far.location.calls == ["records"]
    publish(far, "bad")
    shelf.refresh()
    assert not isinstance(shelf.found()["bad"], RefusedAdapter)


class Slow(Faulty):
    """Answers no listing before a test says so."""

    def records(self):
        assert self.gate.wait(20)
        return self.location.records()

    gate: threading.Event


@pytest.fixture
def slow() -> Iterator[AdapterStore]:
    location = Slow(AdapterStore.at(in_memory()).location)
    location.gate = threading.Event()
    location.gate.set()
    yield AdapterStore(location)
    location.gate.set()


def test_a_slow_store_holds_up_no_folder(slow, store):
    publish(slow, "far", language="fr")
    publish(store)
    known = Registry([slow, store], FINGERPRINT, SIZE)
    assert list(known.snapshot.adapters) == ["de", "far"]
    slow.location.gate.clear()
    time.sleep(2.1)
    for name in ("de-2", "de-3"):
        publish(store, name)
        begin = time.monotonic()
        assert name in known.scan().adapters
        assert time.monotonic() - begin < 2
        assert "far" in known.snapshot.adapters


def test_a_store_that_is_slow_at_the_start_is_not_waited_for_for_ever(slow, store, monkeypatch):
    monkeypatch.setattr(registry_module, "FIRST_LOOK_S", 0.2)
    publish(slow, "far", language="fr")
    publish(store)
    slow.location.gate.clear()
    known = Registry([slow, store], FINGERPRINT, SIZE)
    assert list(known.snapshot.adapters) == ["de"]
    slow.location.gate.set()
    deadline = time.monotonic() + 10
    while "far" not in known.scan().adapters:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_store_that_is_away_at_the_start_takes_nobody_down(far, store):
    publish(store, "fr", language="fr")
    far.location.away = True
    known = Registry([far, store], FINGERPRINT, SIZE)
    assert known.resolve(language="fr").store is store
    with pytest.raises(UnknownLanguage):
        known.resolve(language="de")
    assert known.away == {str(far): "it is gone"}
    with pytest.raises(StoreAway):
        known.refresh(far)
    far.location.away = False
    known.refresh(far)
    assert known.scan().adapters["de"].store is far
    assert known.away == {}


def test_names_in_several_stores_are_meant_in_their_order(far, store):
    publish(store, "de", seed=5)
    assert Registry([far, store], FINGERPRINT, SIZE).resolve(name="de").store is far
    assert Registry([store, far], FINGERPRINT, SIZE).resolve(name="de").store is store
