"""Versions that come and go while the service runs: over HTTP, and by whoever else writes to the folder."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.backbone import load_backbone
from adapters.config import AdapterConfig, top_layers
from adapters.store import AdapterStore
from adapters.vocab import Vocab
from app.settings import Settings
from tests.app.live import Live, serving, wait_until
from tests.app.recordings import recording
from tests.builders import LETTERS, publish_random

KEY = "a key of sixteen letters or more"
BEARER = {"Authorization": f"Bearer {KEY}"}
Publish = Callable[..., str]


@pytest.fixture(scope="module")
def folder(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of which es, fr and ru are there, and which other tests change."""
    return shutil.copytree(model_folder, tmp_path_factory.mktemp("published") / "model")


@pytest.fixture(scope="module")
def live(folder: Path) -> Iterator[Live]:
    settings = Settings.read(models=folder, admin_key=KEY, watch_s=0.2, threads=1, lanes=1, max_adapter_bytes=400_000)
    with serving(settings) as server:
        yield server


@pytest.fixture
def elsewhere(folder: Path, tmp_path: Path) -> Publish:
    """Publish a random adapter to a store of the test's own: its name and seed -> the version."""
    encoder = load_backbone(folder / "backbone")

    def publish(name: str, seed: int, *, language: str = "", to: Path = tmp_path) -> str:
        vocab = Vocab(("<pad>", "|", *LETTERS[language or name]))
        config = AdapterConfig("bottleneck", 8, top_layers(4, 2), "adapted", vocab.size)
        (to / "backbone").exists() or shutil.copytree(folder / "backbone", to / "backbone")
        publish_random(to, name, config, vocab, encoder, seed=seed, language=language or name)
        return AdapterStore(to / "adapters").record(name).version

    return publish


def files_of(store: Path, name: str) -> dict[str, Any]:
    """The form that publishes what lies in a store."""
    folder = store / "adapters" / name
    record = json.loads((folder / "adapter.json").read_text())
    return {
        "adapter.json": (folder / "adapter.json").read_bytes(),
        "weights": (folder / record["weights"]["file"]).read_bytes(),
        "vocab": (folder / record["vocab"]["file"]).read_bytes(),
    }


def put(live: Live, name: str, files: dict[str, Any], **headers: str) -> httpx.Response:
    return live.http.put(f"/adapters/{name}", files=files, headers={**BEARER, **headers})


def said(live: Live, language: str) -> tuple[str, str]:
    """Version and text of an answer."""
    told = live.transcribe(recording("wav-16k"), f"adapter={language}").json()
    return told["version"], told["text"]


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_a_version_that_is_put_answers_from_then_on(live, elsewhere, tmp_path):
    before = said(live, "fr")
    version = elsewhere("fr", seed=70)
    response = put(live, "fr", files_of(tmp_path, "fr"))
    assert response.status_code == 201
    assert response.json()["version"] == version
    assert response.headers["etag"] == f'"{version}"'
    assert (response.json()["state"], response.json()["where"]) == ("ready", "device"), "seated beside the one in use"
    after = said(live, "fr")
    assert after[0] == version != before[0]
    assert after[1] != before[1]


def test_a_new_language_is_served_at_once_and_goes_when_it_is_deleted(live, elsewhere, tmp_path):
    elsewhere("it-calls", seed=71, language="es")
    record = tmp_path / "adapters/it-calls/adapter.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "language": "it"}))
    assert put(live, "it-calls", files_of(tmp_path, "it-calls")).status_code == 201
    assert live.transcribe(recording("wav-16k"), "lang=it").json()["adapter"] == "it-calls"
    assert live.http.delete("/adapters/it-calls", headers=BEARER).status_code == 204
    response = live.transcribe(recording("wav-16k"), "lang=it")
    assert response.status_code == 404
    assert "es, fr, ru" in response.json()["error"]["message"]
    assert code(live.http.delete("/adapters/it-calls", headers=BEARER)) == (404, "unknown_adapter")


def test_only_who_bears_the_key_may(live, elsewhere, tmp_path):
    elsewhere("fr", seed=72)
    files = files_of(tmp_path, "fr")
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}, {"Authorization": f"Basic {KEY}"}):
        refused = live.http.put("/adapters/fr", files=files, headers=headers)
        assert code(refused) == (401, "not_allowed")
        assert refused.headers["www-authenticate"] == "Bearer"
        assert code(live.http.delete("/adapters/fr", headers=headers)) == (401, "not_allowed")
    assert said(live, "fr")[0] != AdapterStore(tmp_path / "adapters").record("fr").version


def test_without_a_key_nobody_may(model_folder):
    with serving(Settings.read(models=model_folder, threads=1, lanes=1)) as live:
        assert code(live.http.delete("/adapters/fr", headers=BEARER)) == (403, "publishing_off")


def test_two_who_change_the_same_version_do_not_overwrite_each_other(live, elsewhere, tmp_path):
    seen = live.http.get("/adapters/es").headers["etag"]
    elsewhere("es", seed=73)
    first = files_of(tmp_path, "es")
    assert put(live, "es", first, **{"If-Match": seen}).status_code == 201
    elsewhere("es", seed=74)
    late = put(live, "es", files_of(tmp_path, "es"), **{"If-Match": seen})
    assert code(late) == (412, "publish_conflict")
    assert code(live.http.delete("/adapters/es", headers={**BEARER, "If-Match": seen})) == (412, "publish_conflict")
    assert code(put(live, "es", first, **{"If-None-Match": "*"})) == (412, "publish_conflict")
    assert said(live, "es")[0] == live.http.get("/adapters/es").json()["version"]


def changed(part: str, change: Callable[[bytes], bytes]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda files: {**files, part: change(files[part])}


@pytest.mark.parametrize(
    ("spoil", "status", "reason"),
    [
        (changed("weights", lambda data: data[:-4] + b"\0\0\0\1"), 422, "weights is not the file"),
        (changed("vocab", lambda data: data.replace(b"a", b"z", 1)), 422, "vocab is not the file"),
        (changed("adapter.json", lambda data: data[:-9]), 422, "not JSON"),
        (changed("adapter.json", lambda data: data.replace(b'"fr"', b'"es"', 1)), 422, "is for 'es'"),
        (changed("adapter.json", lambda data: data.replace(b'"layers"', b'"leyers"')), 422, "lacks 'layers'"),
        (lambda files: {k: v for k, v in files.items() if k != "vocab"}, 422, "vocab is missing"),
        (changed("weights", lambda data: data * 100), 413, "400000 bytes"),
    ],
    ids=["weights", "vocab", "json", "name", "config", "missing", "large"],
)
def test_what_cannot_be_worn_is_refused_and_the_old_one_serves_on(live, elsewhere, tmp_path, spoil, status, reason):
    before = said(live, "fr")
    elsewhere("fr", seed=75)
    response = put(live, "fr", spoil(files_of(tmp_path, "fr")))
    assert response.status_code == status, response.text
    assert reason in response.json()["error"]["message"]
    assert said(live, "fr") == before


def test_an_adapter_of_another_backbone_is_refused(live, elsewhere, tmp_path):
    elsewhere("fr", seed=76)
    files = files_of(tmp_path, "fr")
    files["adapter.json"] = json.dumps({**json.loads(files["adapter.json"]), "fingerprint": "0" * 16}).encode()
    response = put(live, "fr", files)
    assert code(response) == (422, "bad_adapter")
    assert "made for the backbone" in response.json()["error"]["message"]


def test_what_another_process_publishes_is_served_within_two_seconds(live, elsewhere, folder):
    said(live, "ru")  # in use
    version = elsewhere("ru", seed=77, to=folder)
    begin = time.monotonic()
    wait_until(lambda: live.http.get("/adapters/ru").json()["version"] == version, timeout_s=20)
    assert time.monotonic() - begin < 10  # two seconds on a machine that has nothing else to do
    assert said(live, "ru")[0] == version
    assert live.http.get("/adapters/ru").json()["where"] == "device"


def test_a_newer_version_that_is_broken_leaves_the_old_one_serving_until_it_is_mended(
    live, elsewhere, folder, tmp_path
):
    """As a copy that comes in the wrong order does: the record is there before all of the weights are."""
    before = said(live, "ru")
    version = elsewhere("ru", seed=78)
    files, there = files_of(tmp_path, "ru"), folder / "adapters/ru"
    record = json.loads(files["adapter.json"])
    weights = there / record["weights"]["file"]
    weights.write_bytes(files["weights"][:-100])
    (there / record["vocab"]["file"]).write_bytes(files["vocab"])
    (there / "adapter.json").write_bytes(files["adapter.json"])
    wait_until(lambda: live.http.get("/adapters/ru").json()["reason"] is not None, timeout_s=20)
    told = live.http.get("/adapters/ru").json()
    assert (told["state"], told["version"]) == ("ready", before[0])
    assert version in told["reason"]
    assert "shorter" in told["reason"]
    assert said(live, "ru") == before
    weights.write_bytes(files["weights"])
    wait_until(lambda: live.http.get("/adapters/ru").json()["version"] == version, timeout_s=60)
    assert live.http.get("/adapters/ru").json()["reason"] is None
    assert said(live, "ru")[0] == version


def test_a_request_keeps_the_version_that_it_came_for(live, elsewhere, folder, tmp_path):
    """Replaced, removed and swept away while its body is still on the way."""
    old = said(live, "es")
    going, sent = threading.Event(), threading.Event()
    answers: list[httpx.Response] = []

    def body() -> Iterator[bytes]:
        data = recording("wav-16k")
        yield data[:1000]
        sent.set()
        assert going.wait(30)
        yield data[1000:]

    def ask() -> None:
        answers.append(live.http.post("/transcribe?adapter=es", content=body()))

    asking = threading.Thread(target=ask)
    asking.start()
    assert sent.wait(30)
    wait_until(lambda: live.metric("tongues_permits_taken") >= 1, timeout_s=20)
    elsewhere("es", seed=79)
    files = files_of(tmp_path, "es")
    assert put(live, "es", files).status_code == 201
    assert live.http.delete("/adapters/es", headers=BEARER).status_code == 204
    AdapterStore(folder / "adapters").sweep(grace_s=-1)
    assert live.transcribe(recording("wav-16k"), "adapter=es").status_code == 404
    going.set()
    asking.join(60)
    assert answers[0].status_code == 200, answers[0].text
    assert (answers[0].json()["version"], answers[0].json()["text"]) == old
    assert put(live, "es", files).status_code == 201, "and it is there for the tests that follow"


def test_a_record_that_cannot_be_read_leaves_the_old_version_serving(live, folder):
    """As a copy that is on its way: cut off, then whole again."""
    before = said(live, "fr")
    record = folder / "adapters/fr/adapter.json"
    whole = record.read_bytes()
    record.write_bytes(whole[: len(whole) // 2])
    wait_until(lambda: live.http.get("/adapters/fr").json()["reason"] is not None, timeout_s=20)
    told = live.http.get("/adapters/fr").json()
    assert (told["state"], told["version"]) == ("ready", before[0])
    assert "not JSON" in told["reason"]
    assert [one["name"] for one in live.http.get("/adapters").json()["adapters"]].count("fr") == 1
    assert said(live, "fr") == before
    record.write_bytes(whole)
    wait_until(lambda: live.http.get("/adapters/fr").json()["reason"] is None, timeout_s=20)
    assert said(live, "fr") == before


def test_what_gives_no_numbers_is_refused_before_it_is_published(live, elsewhere, folder, tmp_path):
    """Finite as stored, and beyond any number once it is multiplied."""
    before, files = said(live, "fr"), set((folder / "adapters/fr").iterdir())
    elsewhere("fr", seed=80)
    store = AdapterStore(tmp_path / "adapters")
    record = store.record("fr")
    loaded = store.load(record, hidden_size=48, layer_count=4)
    loaded.tensors["head.weight"][:] = 3e38
    published = store.publish(
        "fr",
        loaded.tensors,
        loaded.vocab,
        language="fr",
        config=record.config,
        hidden_size=48,
        layer_count=4,
        fingerprint=record.fingerprint,
    )
    response = put(live, "fr", files_of(tmp_path, "fr"))
    assert code(response) == (422, "bad_adapter")
    assert "no numbers" in response.json()["error"]["message"]
    assert said(live, "fr") == before
    assert AdapterStore(folder / "adapters").record("fr").version == before[0] != published.version
    assert {path for path in files if path.exists()} == files


@pytest.mark.parametrize(
    "headers",
    [{"If-Match": "*"}, {"If-Match": '"a", "b"'}, {"If-None-Match": '"a"'}, {"If-Match": '"a"', "If-None-Match": "*"}],
)
def test_conditions_that_are_not_known_are_refused(live, elsewhere, tmp_path, headers):
    elsewhere("fr", seed=81)
    assert code(put(live, "fr", files_of(tmp_path, "fr"), **headers)) == (422, "bad_parameter")


def test_what_must_be_replaced_and_is_not_there_is_a_conflict(live, elsewhere, tmp_path):
    elsewhere("fr-new", seed=82, language="fr")
    response = put(live, "fr-new", files_of(tmp_path, "fr-new"), **{"If-Match": '"0123456789ab"'})
    assert code(response) == (412, "publish_conflict")


def test_a_pinned_adapter_stays_seated_through_versions_and_absence(model_folder, elsewhere, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "pinned")
    settings = Settings.read(models=folder, admin_key=KEY, watch_s=0.1, threads=1, lanes=1, device_slots=2, pinned="fr")
    with serving(settings) as live:

        def pinned() -> tuple[str, str, bool]:
            told = live.http.get("/adapters/fr").json()
            return told["version"], told["where"], told["pinned"]

        first = pinned()
        assert first[1:] == ("device", True)
        for language in ("es", "ru", "es", "ru"):
            assert live.transcribe(recording("wav-16k"), f"adapter={language}").status_code == 200
        assert pinned() == first
        second = elsewhere("fr", seed=83)
        assert put(live, "fr", files_of(tmp_path, "fr")).status_code == 201
        wait_until(lambda: pinned() == (second, "device", True), timeout_s=20)
        assert live.http.delete("/adapters/fr", headers=BEARER).status_code == 204
        third = elsewhere("fr", seed=84)
        assert put(live, "fr", files_of(tmp_path, "fr")).status_code == 201
        wait_until(lambda: pinned() == (third, "device", True), timeout_s=20)


def test_a_store_that_cannot_be_written_is_told(model_folder, elsewhere, tmp_path, monkeypatch):
    """No space is left, say; a folder without the right to write would not stop root."""
    from adapters import store as store_module

    folder = shutil.copytree(model_folder, tmp_path / "full")
    elsewhere("fr", seed=85)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with serving(Settings.read(models=folder, admin_key=KEY, threads=1, lanes=1)) as live:
        before = said(live, "fr")
        monkeypatch.setattr(store_module, "write_whole", full)
        response = put(live, "fr", files_of(tmp_path, "fr"))
        assert code(response) == (507, "store_not_writable")
        assert "No space left" in response.json()["error"]["message"]
        assert said(live, "fr") == before
