"""Addresses that are refused, stores that can only be read, and those that are away."""

from __future__ import annotations

import errno
from datetime import UTC, datetime, timedelta
from typing import Any

import fsspec
import pytest

from adapters.errors import AdapterAway, StoreAway, StoreError
from adapters.remote import RemoteLocation, check_address, is_address
from adapters.store import AdapterStore
from tests.adapters.places import in_memory, lying, put, remote_of
from tests.adapters.published import SIZE, files, publish
from tests.bucket import S3


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("tea://pot/x", "'tea' is no protocol of a store, such as 's3' or 'hf'"),
        ("memory://", "names no bucket"),
        ("hf:///", "names no bucket or repository"),
        ("file:///etc", "a folder is named by its path alone"),
        ("local://x", "a folder is named by its path alone"),
        ("zip://x::memory://y", "no address of a store"),
    ],
)
def test_an_address_that_cannot_be_is_refused(address, reason):
    with pytest.raises(StoreError, match=reason):
        AdapterStore.at(address)


@pytest.mark.parametrize(("protocol", "wanted"), [("s3", r"pip install 'tongues\[remote\]'"), ("gs", "gcsfs")])
def test_a_missing_package_is_named(monkeypatch, protocol, wanted):
    def missing(protocol: str) -> None:
        raise ImportError(f"Install something to access {protocol}")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(StoreError, match=wanted):
        check_address(f"{protocol}://bucket/x")


def test_paths_are_no_addresses(tmp_path):
    for path in ("./s3", "/a/b", "a:b", "s3:/x", "://x", str(tmp_path)):
        assert not is_address(path)
        assert not AdapterStore.at(path).remote
    assert AdapterStore.at(tmp_path).folder == tmp_path
    with pytest.raises(StoreError, match="is no folder"):
        AdapterStore.at(in_memory()).folder  # noqa: B018


def test_a_hub_is_only_read():
    store = AdapterStore.at("hf://somebody/adapters")
    for change in (lambda: publish(store), lambda: store.remove("de"), lambda: store.sweep(0.0)):
        with pytest.raises(StoreError, match="the store hf://somebody/adapters can be read only"):
            change()


class Failing:
    """A file system on which every call fails in the same way."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **options: Any) -> None:
            raise self.error

        return call


def failing(error: Exception) -> AdapterStore:
    location = RemoteLocation("memory://x")
    location.__dict__["_files"] = Failing(error)
    return AdapterStore(location)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        PermissionError("AccessDenied (403)"),
        TimeoutError(),
        OSError(errno.EBUSY, "503 SlowDown"),
        RuntimeError("what some client raises"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_store_that_does_not_answer_is_away(error):
    record = publish(AdapterStore.at(in_memory()))
    store = failing(error)
    for call in (store.names, lambda: store.record("de")):
        with pytest.raises(StoreAway, match=r"the store memory://x cannot be reached: .+"):
            call()
    with pytest.raises(AdapterAway, match="adapter 'de': the store memory://x cannot be reached"):
        store.load(record, size=SIZE)


@pytest.mark.parametrize("error", [PermissionError("AccessDenied"), NotImplementedError("no writing")])
def test_a_store_without_the_right_to_write_says_so(error, monkeypatch):
    store = AdapterStore.at(in_memory())
    record = publish(store)
    files = remote_of(store)._files

    class ReadOnly:
        def __getattr__(self, name: str) -> Any:
            return getattr(Failing(error) if name in ("pipe_file", "rm_file") else files, name)

    store.location.__dict__["_files"] = ReadOnly()
    for change in (lambda: publish(store, seed=1), lambda: store.remove("de")):
        with pytest.raises(StoreError, match="cannot be written") as caught:
            change()
        assert not isinstance(caught.value, StoreAway), "no waiting mends it"
    assert store.record("de") == record


def test_a_look_is_one_listing(monkeypatch):
    store = AdapterStore.at(in_memory())
    for number in range(20):
        publish(store, f"de-{number}")
    asked: list[str] = []
    files = remote_of(store)._files

    class Counted:
        def __getattr__(self, name: str) -> Any:
            asked.append(name)
            return getattr(files, name)

    store.location.__dict__["_files"] = Counted()
    assert len(store.signatures()) == 20
    assert asked == ["invalidate_cache", "find"]
    asked.clear()
    store.sweep(0.0, keep=[store.record(name) for name in store.names()])
    assert asked.count("cat_file") == 20, "the test's own: a sweep reads no record where nothing is left over"


def test_what_is_no_adapter_is_passed_over():
    store = AdapterStore.at(in_memory())
    publish(store)
    for path in ("README.md", "a/b/adapter.json", ".git/adapter.json", "fr/weights-00.safetensors"):
        remote_of(store)._files.pipe_file(f"{remote_of(store)._root}/{path}", b"x")
    assert store.names() == ("de",)


def test_a_bucket_that_is_not_there_is_away(s3: S3):
    with pytest.raises(StoreAway, match="is not there"):
        AdapterStore.at("s3://there-is-none/x").names()


def test_a_prefix_is_not_its_neighbour(s3: S3, tmp_path):
    address = s3.bucket()
    publish(AdapterStore.at(address + "-two"), "neighbour")
    publish(AdapterStore.at(address + "/deeper"), "below")
    store = AdapterStore.at(address + "/")
    record = publish(store)
    assert store.names() == ("de",)
    there = {"adapter.json", record.weights.name, record.vocab.name}
    assert lying(store) == there
    local = AdapterStore(tmp_path)
    assert publish(local) == record, "the same files wherever they lie"
    assert files(local) == there


def test_a_server_that_comes_back_is_used_again():
    server = S3()
    try:
        with pytest.MonkeyPatch.context() as patched:
            for name, value in server.environment.items():
                patched.setenv(name, value)
            store = AdapterStore.at(server.bucket())
            record = publish(store)
            server.stop()
            with pytest.raises(StoreAway):
                store.names()
            with pytest.raises(AdapterAway):
                store.load(record, size=SIZE)
            server.start(server.port)
            assert store.names() == ("de",)
            put(store, "de", "notes.txt", b"x")
            assert store.load(record, size=SIZE).record == record
    finally:
        server.stop()


def put_long_ago(store: AdapterStore, *names: str) -> None:
    """As if these objects had been put a month ago."""
    for name in names:
        held = remote_of(store)._files.store[f"{remote_of(store)._root}/de/{name}"]
        held.created = datetime.now(UTC) - timedelta(days=30)


def test_grace_counts_from_when_a_version_was_replaced():
    store = AdapterStore.at(in_memory())
    old = publish(store)
    put_long_ago(store, *lying(store))
    new = publish(store, seed=1)
    put_long_ago(store, new.weights.name, new.vocab.name)
    assert store.sweep(grace_s=60.0) == ()
    put_long_ago(store, "adapter.json")
    assert [path.name for path in store.sweep(grace_s=60.0)] == [old.weights.name]


def test_grace_counts_from_when_an_adapter_was_removed():
    store = AdapterStore.at(in_memory())
    record = publish(store)
    put_long_ago(store, *lying(store))
    store.remove("de")
    assert store.sweep(grace_s=60.0) == ()
    store.load(record, size=SIZE)
    put_long_ago(store, *lying(store))
    assert len(store.sweep(grace_s=60.0)) == 2
    assert lying(store) == set()


def test_what_is_put_to_be_named_soon_is_not_swept():
    """By another process, which no lock keeps out: its files are new, and the record that they replace is old."""
    store = AdapterStore.at(in_memory())
    publish(store)
    put_long_ago(store, *lying(store))
    put(store, "de", "weights-00.safetensors", b"on its way")
    assert store.sweep(grace_s=60.0) == ()
    put_long_ago(store, "weights-00.safetensors")
    assert [path.name for path in store.sweep(grace_s=60.0)] == ["weights-00.safetensors"]
