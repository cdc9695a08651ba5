"""``hf://``: the client of huggingface_hub, and a hub on loopback."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from adapters.errors import AdapterAway, AdapterCorrupt, StoreAway, StoreError
from adapters.registry import Registry
from adapters.store import AdapterStore
from tests.adapters.published import FINGERPRINT, SIZE, publish
from tests.hub import Hub

REPO = "somebody/speech"


@pytest.fixture
def there(hub: Hub, store: AdapterStore, tmp_path: Path) -> Path:
    """The folder of ``somebody/speech``, with the adapters de and fr below ``adapters/``."""
    publish(store)
    publish(store, "fr", language="fr")
    hub.repos[REPO] = tmp_path / "repo"
    shutil.copytree(store.folder, tmp_path / "repo" / "adapters")
    (tmp_path / "repo" / "README.md").write_text("#")
    return tmp_path / "repo"


def on_hub(address: str = "hf://somebody/speech/adapters") -> AdapterStore:
    return AdapterStore.at(address)


@pytest.mark.parametrize("revision", ["", "@main", "@v1.0", "@refs%2Fpr%2F1"])
def test_what_is_on_the_hub_is_listed_and_loaded(hub, there, store, revision):
    hub.revisions[REPO] = {"v1.0", "refs/pr/1"}
    far = on_hub(f"hf://somebody/speech{revision}/adapters")
    assert far.names() == ("de", "fr")
    record = far.record("de")
    assert record == store.record("de")
    assert far.load(record, size=SIZE).tensors.keys() == store.load(record, size=SIZE).tensors.keys()


def test_a_repository_may_hold_nothing_but_adapters(hub, there):
    hub.repos["somebody/adapters"] = there / "adapters"
    assert on_hub("hf://somebody/adapters").names() == ("de", "fr")


def test_thousands_are_one_listing(hub, there):
    far = on_hub()
    far.names()
    hub.requests.clear()
    for number in range(1000):
        (there / f"adapters/x-{number}").mkdir()
        (there / f"adapters/x-{number}/adapter.json").write_text("{}")
    assert len(far.names()) == 1002
    pages = [f"/api/models/{REPO}/tree/main/adapters"] * 2
    assert hub.requests == [f"/api/models/{REPO}", *pages]


def test_a_new_version_on_the_hub_is_found(hub, there, store):
    known = Registry([on_hub()], FINGERPRINT, SIZE)
    before = known.resolve(name="de")
    hub.requests.clear()
    publish(store, seed=1)
    shutil.copytree(store.folder, there / "adapters", dirs_exist_ok=True)
    known.refresh(known.stores[0])
    assert known.scan().adapters["de"].version == store.record("de").version != before.version
    assert not [path for path in hub.requests if "resolve" in path and "/fr/" in path], (
        "what did not change is not read"
    )
    known.load(known.resolve(name="de"))


def test_a_hub_is_looked_at_once_a_minute():
    """It counts requests, a few hundred in five minutes."""
    assert on_hub().pace_s == 60.0
    assert AdapterStore.at("memory://x").pace_s == 2.0


def test_a_hub_is_not_written(hub, there):
    with pytest.raises(StoreError, match="can be read only"):
        publish(on_hub())
    assert not hub.requests


def test_files_that_are_cut_off_or_gone_are_noticed(hub, there):
    far = on_hub()
    record = far.record("de")
    (there / f"adapters/de/{record.weights.name}").write_bytes(b"torn")
    with pytest.raises(AdapterCorrupt, match="is shorter"):
        far.load(record, size=SIZE)
    (there / f"adapters/de/{record.weights.name}").write_bytes(b"x" * 1_000_000)
    with pytest.raises(AdapterCorrupt, match="were expected"):
        far.load(record, size=SIZE)
    (there / f"adapters/de/{record.vocab.name}").unlink()
    with pytest.raises(AdapterCorrupt, match="is missing"):
        far.load(record, size=SIZE)


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_a_hub_that_refuses_is_away_and_takes_nothing_along(hub, there, status, monkeypatch):
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


def test_a_repository_that_is_not_there_or_not_shown_is_away(hub, there, monkeypatch):
    with pytest.raises(StoreAway, match="not there"):
        on_hub("hf://somebody/else").names()
    hub.private[REPO] = "hf_secret"
    with pytest.raises(StoreAway, match="not there"):
        on_hub().names()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert on_hub().names() == ("de", "fr")
