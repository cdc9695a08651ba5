"""``hf://``: the client of huggingface_hub, and a hub on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.errors import AdapterAway, AdapterCorrupt, StoreAway, StoreError
from adapters.registry import Registry
from adapters.store import AdapterStore
from tests.adapters.hub import Hub, hub_server
from tests.adapters.published import FINGERPRINT, SIZE, publish


@pytest.fixture
def hub(store) -> Iterator[Hub]:
    """With the adapters de and fr in ``somebody/speech``, below ``adapters/``."""
    publish(store)
    publish(store, "fr", language="fr")
    with hub_server() as server:
        server.repositories["somebody/speech"] = {"README.md": b"#", **files(store.folder)}
        yield server


def files(folder: Path) -> dict[str, bytes]:
    return {f"adapters/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def on_hub(address: str = "hf://somebody/speech/adapters") -> AdapterStore:
    return AdapterStore.at(address)


@pytest.mark.parametrize("revision", ["", "@main", "@v1.0", "@refs%2Fpr%2F1"])
def test_what_is_on_the_hub_is_listed_and_loaded(hub, store, revision):
    far = on_hub(f"hf://somebody/speech{revision}/adapters")
    assert far.names() == ("de", "fr")
    record = far.record("de")
    assert record == store.record("de")
    assert far.load(record, size=SIZE).tensors.keys() == store.load(record, size=SIZE).tensors.keys()


def test_a_repository_may_hold_nothing_but_adapters(hub, store):
    hub.repositories["somebody/adapters"] = {
        path.removeprefix("adapters/"): content for path, content in files(store.folder).items()
    }
    assert on_hub("hf://somebody/adapters").names() == ("de", "fr")


def test_thousands_are_one_listing(hub, store):
    far = on_hub()
    far.names()
    hub.asked.clear()
    for number in range(1000):
        hub.repositories["somebody/speech"][f"adapters/x-{number}/adapter.json"] = b"{}"
    assert len(far.names()) == 1002
    assert hub.asked == ["/api/models/somebody/speech", "/api/models/somebody/speech/tree/main/adapters"]


def test_a_new_version_on_the_hub_is_found(hub, store):
    known = Registry([on_hub()], FINGERPRINT, SIZE)
    before = known.resolve(name="de")
    hub.asked.clear()
    publish(store, seed=1)
    hub.repositories["somebody/speech"] = files(store.folder)
    known.refresh(known.stores[0])
    assert known.scan().adapters["de"].version == store.record("de").version != before.version
    assert not [path for path in hub.asked if "resolve" in path and "/fr/" in path], "what did not change is not read"
    known.load(known.resolve(name="de"))


def test_a_hub_is_not_written(hub):
    with pytest.raises(StoreError, match="can be read only"):
        publish(on_hub())
    assert not hub.asked


def test_files_that_are_cut_off_or_gone_are_noticed(hub, store):
    far = on_hub()
    record = far.record("de")
    repository = hub.repositories["somebody/speech"]
    repository[f"adapters/de/{record.weights.name}"] = b"torn"
    with pytest.raises(AdapterCorrupt, match="is shorter"):
        far.load(record, size=SIZE)
    repository[f"adapters/de/{record.weights.name}"] = b"x" * 1_000_000
    with pytest.raises(AdapterCorrupt, match="were expected"):
        far.load(record, size=SIZE)
    del repository[f"adapters/de/{record.vocab.name}"]
    with pytest.raises(AdapterCorrupt, match="is missing"):
        far.load(record, size=SIZE)


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_a_hub_that_refuses_is_away_and_takes_nothing_along(hub, status, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda s: None)  # the client's own, between its tries
    known = Registry([on_hub()], FINGERPRINT, SIZE)
    adapter = known.resolve(name="de")
    hub.status = status
    with pytest.raises(StoreAway, match="hf://somebody/speech/adapters"):
        known.refresh(adapter.store)
    assert list(known.scan().adapters) == ["de", "fr"]
    if status != 404:
        with pytest.raises((AdapterAway, AdapterCorrupt)):
            known.load(adapter)
    hub.status = 200
    known.refresh(adapter.store)
    assert known.load(adapter).record.name == "de"


def test_a_repository_that_is_not_there_or_not_shown_is_away(hub, monkeypatch):
    with pytest.raises(StoreAway, match="not there"):
        on_hub("hf://somebody/else").names()
    hub.token = "hf_secret"
    with pytest.raises(StoreAway, match="not there"):
        on_hub().names()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert on_hub().names() == ("de", "fr")
