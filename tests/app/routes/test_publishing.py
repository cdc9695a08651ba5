"""Versions that come and go over HTTP while the service runs, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.config import BackboneSize
from adapters.store import AdapterStore
from app.engine.publishing import Publishing
from app.settings import Settings
from tests.app.live import Live, answer, serving
from tests.app.recordings import recording
from tests.app.routes.publisher import BEARER, KEY, code, files_of, open_to_publishers, put, said


@pytest.fixture(scope="module")
def live(folder: Path) -> Iterator[Live]:
    with serving(open_to_publishers(folder)) as server:
        yield server


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
        (lambda files: {**files, "language_model": b"words"}, 422, "language_model came, which adapter.json does not"),
        (changed("weights", lambda data: data * 100), 413, "400000 bytes"),
    ],
    ids=["weights", "vocab", "json", "name", "config", "missing", "more", "large"],
)
def test_what_cannot_be_worn_is_refused_and_the_old_one_serves_on(live, elsewhere, tmp_path, spoil, status, reason):
    before = said(live, "fr")
    elsewhere("fr", seed=75)
    response = put(live, "fr", spoil(files_of(tmp_path, "fr")))
    assert response.status_code == status, response.text
    assert reason in response.json()["error"]["message"]
    assert said(live, "fr") == before


def test_a_second_default_of_a_language_is_refused(live, elsewhere, tmp_path):
    """As both would be none, and nobody answered in it any more."""
    elsewhere("fr", seed=77)
    files = files_of(tmp_path, "fr")
    record = json.loads(files["adapter.json"])
    first = {**files, "adapter.json": json.dumps({**record, "default": True}).encode()}
    assert put(live, "fr", first).status_code == 201
    second = {**files, "adapter.json": json.dumps({**record, "name": "fr-b", "default": True}).encode()}
    response = put(live, "fr-b", second)
    assert code(response) == (422, "bad_adapter")
    assert "'fr' is the default for fr" in response.json()["error"]["message"]
    region = {**record, "name": "fr-CH", "language": "fr-CH", "default": True}
    assert put(live, "fr-CH", {**files, "adapter.json": json.dumps(region).encode()}).status_code == 201
    assert live.transcribe(recording("wav-16k"), "lang=fr").json()["adapter"] == "fr"
    assert live.http.delete("/adapters/fr-CH", headers=BEARER).status_code == 204


def test_an_adapter_of_another_backbone_is_refused(live, elsewhere, tmp_path):
    elsewhere("fr", seed=76)
    files = files_of(tmp_path, "fr")
    files["adapter.json"] = json.dumps({**json.loads(files["adapter.json"]), "fingerprint": "0" * 16}).encode()
    response = put(live, "fr", files)
    assert code(response) == (422, "bad_adapter")
    assert "made for the backbone" in response.json()["error"]["message"]


def test_what_gives_no_numbers_is_refused_before_it_is_published(live, elsewhere, folder, tmp_path):
    """Finite as stored, and beyond any number once it is multiplied."""
    before, files = said(live, "fr"), set((folder / "adapters/fr").iterdir())
    elsewhere("fr", seed=80)
    store = AdapterStore(tmp_path / "adapters")
    record = store.record("fr")
    loaded = store.load(record, size=BackboneSize(48, 4, 96))
    loaded.tensors["head.weight"][:] = 3e38
    published = store.publish(
        "fr",
        loaded.tensors,
        loaded.vocab,
        language="fr",
        config=record.config,
        size=BackboneSize(48, 4, 96),
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
    [
        {"If-Match": "*"},
        {"If-Match": '"a", "b"'},
        {"If-None-Match": '"a"'},
        {"If-Match": '"a"', "If-None-Match": "*"},
        {"If-Match": '""'},
        {"If-Match": ""},
        {"If-Match": 'W/""'},
        {"If-None-Match": ""},
    ],
)
def test_conditions_that_are_not_known_are_refused(live, elsewhere, tmp_path, headers):
    elsewhere("fr", seed=81)
    response = put(live, "fr", files_of(tmp_path, "fr"), **headers)
    assert code(response) == (422, "bad_parameter")
    assert '"VERSION"' in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("headers", "told"),
    [({"If-Match": '"a", "b"'}, "bad_parameter"), ({"If-Match": '"0123456789ab"'}, "publish_conflict")],
)
def test_a_condition_that_does_not_hold_costs_no_upload(live, headers, told):
    """A megabyte is announced, more than is accepted, and none of it sent."""
    lines = "\n".join(f"{name}: {value}" for name, value in {**BEARER, **headers}.items())
    head = f"PUT /adapters/fr HTTP/1.1\nHost: x\n{lines}\nContent-Type: multipart/form-data; boundary=b"
    with live.connect(f"{head}\nContent-Length: 1000000") as connection:
        assert answer(connection)[1]["error"]["code"] == told


def test_what_was_published_is_told_so_although_the_service_stops(live, elsewhere, tmp_path, monkeypatch):
    version = elsewhere("fr", seed=91)
    service = live.app.state.service
    publish = Publishing.put

    async def stops(publishing, *given, **how):
        done = await publish(publishing, *given, **how)
        monkeypatch.setattr(service, "_draining", True)
        return done

    monkeypatch.setattr(Publishing, "put", stops)
    response = put(live, "fr", files_of(tmp_path, "fr"))
    assert (response.status_code, response.json()["version"]) == (201, version)
    assert live.http.get("/adapters/fr").status_code == 503
    monkeypatch.undo()
    assert live.http.get("/adapters/fr").json()["version"] == version


def test_what_must_be_replaced_and_is_not_there_is_a_conflict(live, elsewhere, tmp_path):
    elsewhere("fr-new", seed=82, language="fr")
    response = put(live, "fr-new", files_of(tmp_path, "fr-new"), **{"If-Match": '"0123456789ab"'})
    assert code(response) == (412, "publish_conflict")


def test_a_store_that_cannot_be_written_is_told(model_folder, elsewhere, tmp_path, monkeypatch):
    """No space is left, say; a folder without the right to write would not stop root."""
    from adapters import folder as folder_module

    folder = shutil.copytree(model_folder, tmp_path / "full")
    elsewhere("fr", seed=85)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with serving(Settings.read(models=folder, admin_key=KEY, threads=1, lanes=1)) as live:
        before = said(live, "fr")
        monkeypatch.setattr(folder_module, "write_whole", full)
        response = put(live, "fr", files_of(tmp_path, "fr"))
        assert code(response) == (507, "store_not_writable")
        assert "No space left" in response.json()["error"]["message"]
        assert said(live, "fr") == before
