"""Copies of what lies in a remote store: read instead of it, and never believed without their hash."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from adapters.cache import CachedLocation
from adapters.errors import AdapterCorrupt, StoreAway
from adapters.remote import RemoteLocation
from adapters.store import AdapterStore
from tests.adapters.places import Faulty, in_memory, put
from tests.adapters.published import SIZE, publish, tensors


class Cached:
    """A store through a cache, and what is asked of the location beyond it."""

    def __init__(self, folder: Path, max_bytes: int = 1 << 20, address: str = "") -> None:
        self.beyond = Faulty(RemoteLocation(address or in_memory()))
        self.folder = folder
        self.store = AdapterStore(CachedLocation(self.beyond, folder, max_bytes))

    def asked(self) -> list[str]:
        calls, self.beyond.calls = self.beyond.calls, []
        return calls

    def copies(self) -> list[Path]:
        return sorted(self.folder.glob("*/*"))


@pytest.fixture
def cached(tmp_path: Path) -> Cached:
    return Cached(tmp_path / "cache")


def test_what_was_fetched_once_is_read_from_the_copy(cached):
    record = publish(cached.store)
    assert cached.copies() == [], "a writer reads what lies there"
    cached.asked()
    cached.store.load(record, size=SIZE)
    assert cached.asked() == ["read", "read"]
    cached.beyond.away = True
    loaded = cached.store.load(record, size=SIZE)
    assert torch.equal(loaded.tensors["head.weight"], tensors()["head.weight"])
    assert cached.asked() == []
    with pytest.raises(StoreAway):
        cached.store.record("de")


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-1] + b"\x7f", lambda content: b"", lambda content: content * 2]
)
def test_a_copy_that_was_damaged_is_fetched_again(cached, damage):
    record = publish(cached.store)
    cached.store.load(record, size=SIZE)
    for copy in cached.copies():
        copy.write_bytes(damage(copy.read_bytes()))
    cached.asked()
    for reads in (2, 0):
        cached.store.load(record, size=SIZE)
        assert cached.asked() == ["read"] * reads


def test_what_is_not_what_its_name_says_is_not_kept(cached):
    record = publish(cached.store)
    put(cached.store, "de", record.weights.name, b"torn")
    with pytest.raises(AdapterCorrupt):
        cached.store.load(record, size=SIZE)
    publish(cached.store)
    cached.store.load(record, size=SIZE)


def test_a_commit_looks_at_what_lies_there(cached):
    record = publish(cached.store)
    cached.store.load(record, size=SIZE)
    put(cached.store, "de", record.weights.name, b"torn")
    cached.store.load(record, size=SIZE)
    with pytest.raises(AdapterCorrupt):
        cached.store.commit(record, size=SIZE)


def test_the_longest_unused_copies_go(tmp_path):
    one = Cached(tmp_path / "a", 1 << 20)
    record = publish(one.store)
    bytes_of_one = sum(stored.size_bytes for stored in record.files.values())
    cached = Cached(tmp_path / "b", 2 * bytes_of_one + 100)
    records = {seed: publish(cached.store, f"de-{seed}", seed=seed) for seed in range(3)}

    def load(seeds: Iterable[int]) -> list[int]:
        fetched = []
        for seed in seeds:
            cached.asked()
            cached.store.load(records[seed], size=SIZE)
            fetched += [seed] * ("read" in cached.asked())
        return fetched

    assert load([0, 1, 0, 2]) == [0, 1, 2], "of 0 there was a copy"
    assert sum(copy.stat().st_size for copy in cached.copies()) <= 2 * bytes_of_one + 100
    assert load([0, 2, 1]) == [1]


def test_what_is_larger_than_the_cache_is_not_kept(tmp_path):
    cached = Cached(tmp_path, 1000)
    cached.store.load(publish(cached.store), size=SIZE)
    assert [copy.name.partition("-")[0] for copy in cached.copies()] == ["vocab"]


def test_room_is_made_of_copies_alone(tmp_path):
    """The folder may be somebody's home by mistake."""
    record = publish(Cached(tmp_path / "x").store)
    most = max(stored.size_bytes for stored in record.files.values()) + 100
    cached = Cached(tmp_path / "home", most)
    theirs = [
        tmp_path / "home" / path
        for path in ("photos/weights-0123456789abcdef.safetensors", "0123456789abcdef/notes.txt", "taxes/2024.ods")
    ]
    left = tmp_path / "home/fedcba9876543210/.weights-0123456789abcdef.safetensors.0123456789abcdef"
    for path in (*theirs, left):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1_000_000)
        os.utime(path, (0, 0))
    for seed in range(3):
        cached.store.load(publish(cached.store, f"de-{seed}", seed=seed), size=SIZE)
    assert all(path.stat().st_size == 1_000_000 for path in theirs)
    assert not left.exists(), "a killed process left it"
    ours = [copy for copy in cached.copies() if copy not in theirs]
    assert 0 < sum(copy.stat().st_size for copy in ours) <= most


def test_room_that_another_process_makes_meanwhile(tmp_path, monkeypatch, caplog):
    cached = Cached(tmp_path, 1000)
    gone = tmp_path / "0123456789abcdef/vocab-0123456789abcdef.json"
    found = Path.glob
    monkeypatch.setattr(Path, "glob", lambda path, pattern: [gone, *found(path, pattern)])
    cached.store.load(publish(cached.store), size=SIZE)
    assert "no copy" not in caplog.text
    assert [copy.name.partition("-")[0] for copy in cached.copies() if copy.exists()] == ["vocab"]


def test_stores_do_not_share_copies(tmp_path):
    """One could else spoil what another holds."""
    for address in (first := in_memory(), in_memory(), first):
        cached = Cached(tmp_path, address=address)
        cached.store.load(publish(cached.store), size=SIZE)
    assert len({copy.parent for copy in cached.copies()}) == 2


def test_a_cache_that_cannot_be_written_is_gone_without(tmp_path, caplog):
    (tmp_path / "cache").write_text("no folder")
    cached = Cached(tmp_path / "cache")
    with caplog.at_level(logging.WARNING, "tongues.adapters"):
        cached.store.load(publish(cached.store), size=SIZE)
    assert "no copy of weights-" in caplog.text


def test_an_address_with_a_cache_is_a_store_with_one(tmp_path):
    address = in_memory()
    store = AdapterStore.at(address, cache=tmp_path / "cache", cache_bytes=1 << 20)
    assert str(store) == address
    assert store.remote
    store.load(publish(store), size=SIZE)
    assert list((tmp_path / "cache").glob("*/weights-*"))
    assert not AdapterStore.at(tmp_path, cache=tmp_path / "cache").remote
