"""A service whose adapters lie in a bucket, or in memory in its stead: what comes there, and when it is away."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from adapters.config import BackboneSize
from adapters.store import AdapterStore
from app.engine import publishing
from app.settings import Settings
from tests.adapters.places import in_memory
from tests.adapters.places import put as put_object
from tests.app.live import Live, serving, wait_until
from tests.app.recordings import recording
from tests.app.routes.publisher import BEARER, KEY, code, files_of, put, said
from tests.bucket import s3_server

ROOT = Path(__file__).parents[3]
SIZE = BackboneSize(48, 4, 96)


@dataclass(frozen=True)
class Remote:
    """An address, and ways to have nobody answer there for a while."""

    address: str
    leave: Callable[[], None]
    come_back: Callable[[], None]


@pytest.fixture(params=["memory", "s3"])
def remote(request: pytest.FixtureRequest) -> Iterator[Remote]:
    if request.param == "memory":
        with pytest.MonkeyPatch.context() as patched:
            yield Remote(in_memory(), lambda: refuse(patched), patched.undo)
        return
    with s3_server() as server:
        yield Remote(server.bucket(), server.stop, lambda: server.start(server.port))


def refuse(patched: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise ConnectionRefusedError("nobody answers")

    for name in ("find", "cat_file", "info", "pipe_file", "rm_file"):
        patched.setattr(MemoryFileSystem, name, refused)


def settings(folder: Path, address: str, **options: Any) -> Settings:
    return Settings.read(models=folder, adapters=address, admin_key=KEY, watch_s=0.2, threads=1, lanes=1, **options)


def publish_at(address: str, folder: Path, name: str) -> str:
    """What lies in a folder, at an address too; the version."""
    record = AdapterStore(folder / "adapters").record(name)
    files = files_of(folder, name)
    data = files.pop("adapter.json")
    store = AdapterStore.at(address)
    store.commit(store.stage(name, data, files, size=SIZE, fingerprint=record.fingerprint or ""), size=SIZE)
    return record.version


def told(live: Live, name: str) -> tuple[str, str, str]:
    adapter = live.http.get(f"/adapters/{name}").json()
    return adapter["state"], adapter["where"], adapter["version"]


def test_what_is_published_there_is_fetched_for_who_asks_and_replaced_while_it_is_worn(
    model_folder, elsewhere, tmp_path, remote
):
    elsewhere("fr", seed=90)
    first = publish_at(remote.address, tmp_path, "fr")
    with serving(settings(model_folder, remote.address, cache=tmp_path / "cache")) as live:
        assert told(live, "fr") == ("remote", "remote", first), "it counts before the folder's, and nothing loaded it"
        assert told(live, "es")[:2] != ("remote", "remote")
        assert said(live, "fr")[0] == first
        assert told(live, "fr") == ("ready", "device", first)
        assert len(list((tmp_path / "cache").glob("*/*"))) == 2, "its weights and its vocabulary"
        second = elsewhere("fr", seed=91)
        publish_at(remote.address, tmp_path, "fr")
        begin = time.monotonic()
        wait_until(lambda: told(live, "fr")[2] == second, timeout_s=30)
        assert time.monotonic() - begin < 15  # a few seconds on a machine that has nothing else to do
        assert told(live, "fr") == ("ready", "device", second), "it was fetched and tried out before"
        assert said(live, "fr")[0] == second
        AdapterStore.at(remote.address).remove("fr")
        local = AdapterStore(model_folder / "adapters").record("fr").version
        wait_until(lambda: told(live, "fr")[2] == local, timeout_s=30)
        assert said(live, "fr")[0] == local


def test_what_another_process_publishes_in_a_bucket_is_served(model_folder, elsewhere, tmp_path):
    version = elsewhere("fr", seed=92)
    with s3_server() as server, serving(settings(model_folder, address := server.bucket())) as live:
        assert told(live, "fr")[2] != version
        script = "import sys, pathlib; from tests.app.routes.test_remote_stores import publish_at as publish;"
        script += "publish(sys.argv[1], pathlib.Path(sys.argv[2]), 'fr')"
        subprocess.run([sys.executable, "-c", script, address, str(tmp_path)], cwd=ROOT, check=True)
        wait_until(lambda: told(live, "fr")[2] == version, timeout_s=20)
        assert said(live, "fr")[0] == version


def test_a_version_that_is_put_goes_to_the_first_store(model_folder, elsewhere, tmp_path, remote):
    version = elsewhere("fr", seed=93)
    store = AdapterStore.at(remote.address)
    with serving(settings(model_folder, remote.address)) as live:
        local = told(live, "fr")[2]
        response = put(live, "fr", files_of(tmp_path, "fr"), **{"If-Match": f'"{local}"'})
        assert response.status_code == 201, response.text
        assert store.record("fr").version == version
        assert said(live, "fr")[0] == version
        elsewhere("fr", seed=94)
        late = put(live, "fr", files_of(tmp_path, "fr"), **{"If-Match": f'"{local}"'})
        assert code(late) == (412, "publish_conflict")
        bad = {**files_of(tmp_path, "fr"), "weights": b"x"}
        assert code(put(live, "fr", bad)) == (422, "bad_adapter")
        assert said(live, "fr")[0] == version
        assert live.http.delete("/adapters/fr", headers=BEARER).status_code == 204
        assert store.names() == ()
        assert said(live, "fr")[0] == local, "the folder's is meant again"


def test_who_may_not_delete_in_a_store_may_publish_there(
    model_folder, elsewhere, tmp_path, remote, monkeypatch, caplog
):
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError("AccessDenied: s3:DeleteObject")

    async def refused_by_s3(*_: Any, **__: Any) -> None:
        refused()

    elsewhere("fr", seed=82)
    publish_at(remote.address, tmp_path, "fr")
    put_object(AdapterStore.at(remote.address), "fr", "weights-0123.safetensors", b"of an old version")
    monkeypatch.setattr(publishing, "SWEEP_GRACE_S", 0.0)
    monkeypatch.setattr(MemoryFileSystem, "rm_file", refused)
    if remote.address.startswith("s3"):
        monkeypatch.setattr(pytest.importorskip("s3fs").S3FileSystem, "_rm_file", refused_by_s3)
    with serving(settings(model_folder, remote.address)) as live:
        version = elsewhere("fr", seed=83)
        response = put(live, "fr", files_of(tmp_path, "fr"))
        assert response.status_code == 201, response.text
        assert said(live, "fr")[0] == version
    assert "old versions stay" in caplog.text
    assert "AccessDenied" in caplog.text


def test_a_store_that_goes_away_takes_nobody_along(model_folder, elsewhere, tmp_path, remote):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    for name, seed in (("fr", 95), ("fr-cold", 96)):
        elsewhere(name, seed=seed, language="fr")
        publish_at(remote.address, tmp_path, name)
    with serving(settings(folder, remote.address)) as live:
        before = said(live, "fr")
        remote.leave()
        time.sleep(3)
        assert said(live, "fr") == before, "what was fetched is served"
        assert told(live, "fr-cold")[:2] == ("remote", "remote"), "and what was there is still known"
        for _ in range(2):
            cold = live.transcribe(recording("wav-16k"), "adapter=fr-cold")
            assert code(cold) == (503, "adapter_away")
            assert "cannot be reached" in cold.json()["error"]["message"]
            assert int(cold.headers["retry-after"]) >= 1
        listed = {one["name"]: one for one in live.http.get("/adapters").json()["adapters"]}
        assert (listed["fr-cold"]["state"], listed["fr-cold"]["where"]) == ("failed", "remote")
        assert "cannot be reached" in listed["fr-cold"]["reason"]
        assert live.transcribe(recording("wav-16k"), "lang=es").status_code == 200
        assert code(put(live, "fr", files_of(tmp_path, "fr"))) == (503, "store_away")

        version = elsewhere("ru", seed=97, to=folder)
        begin = time.monotonic()
        wait_until(lambda: told(live, "ru")[2] == version, timeout_s=20)
        assert time.monotonic() - begin < 10, "folders are looked at as ever"

        remote.come_back()
        wait_until(lambda: live.transcribe(recording("wav-16k"), "adapter=fr-cold").status_code == 200, timeout_s=60)
        assert said(live, "fr") == before


def test_a_store_that_is_slow_holds_nobody_up(model_folder, elsewhere, tmp_path, monkeypatch):
    """It lists what is new, and does not come to the end of its weights."""
    folder, address = shutil.copytree(model_folder, tmp_path / "model"), in_memory()
    elsewhere("fr", seed=86)
    publish_at(address, tmp_path, "fr")
    with serving(settings(folder, address)) as live:
        before, going = said(live, "fr"), threading.Event()
        second = elsewhere("fr", seed=87)
        publish_at(address, tmp_path, "fr")
        read = MemoryFileSystem.cat_file

        def slowly(files: MemoryFileSystem, path: str, **options: Any) -> Any:
            assert path.endswith(".json") or going.wait(60)
            return read(files, path, **options)

        monkeypatch.setattr(MemoryFileSystem, "cat_file", slowly)
        try:
            time.sleep(4)
            version = elsewhere("ru", seed=85, to=folder)
            begin = time.monotonic()
            wait_until(lambda: told(live, "ru")[2] == version, timeout_s=20)
            assert time.monotonic() - begin < 10
            assert said(live, "ru")[0] == version
            assert said(live, "fr") == before, "the old one serves until the new one has come"
        finally:
            going.set()
        wait_until(lambda: told(live, "fr") == ("ready", "device", second), timeout_s=20)


def test_a_service_starts_without_its_store(model_folder, elsewhere, tmp_path, remote):
    version = elsewhere("it-calls", seed=98, language="es")
    publish_at(remote.address, tmp_path, "it-calls")
    remote.leave()
    with serving(settings(model_folder, remote.address, pinned="it-calls")) as live:
        assert live.transcribe(recording("wav-16k"), "adapter=es").status_code == 200
        assert live.http.get("/adapters/it-calls").status_code == 404
        remote.come_back()
        pinned = ("ready", "device", version)
        wait_until(
            lambda: live.http.get("/adapters/it-calls").status_code == 200 and told(live, "it-calls") == pinned, 60
        )
        assert live.http.get("/adapters/it-calls").json()["pinned"]


def test_a_pinned_adapter_is_fetched_at_the_start(model_folder, elsewhere, tmp_path):
    address, version = in_memory(), elsewhere("fr", seed=99)
    publish_at(address, tmp_path, "fr")
    with serving(settings(model_folder, address, pinned="fr")) as live:
        assert told(live, "fr") == ("ready", "device", version)


@pytest.mark.parametrize(
    "name", ["s3://bucket/fr", "s3%3A%2F%2Fbucket%2Ffr", "memory://x/fr", "..%2F..%2Fetc", "hf://user/repo", "/etc"]
)
def test_no_request_names_an_address_or_a_path(model_folder, elsewhere, tmp_path, name, monkeypatch):
    elsewhere("fr", seed=89)
    with serving(settings(model_folder, in_memory())) as live:
        asked: list[object] = []
        for call in ("cat_file", "info", "pipe_file", "rm_file"):
            monkeypatch.setattr(MemoryFileSystem, call, lambda *given, **_: asked.append(given))
        for query in (f"adapter={name}", f"lang={name}"):
            assert live.transcribe(recording("wav-16k"), query).status_code in (404, 422)
        assert live.http.get(f"/adapters/{name}").status_code == 404
        assert put(live, name, files_of(tmp_path, "fr")).status_code in (404, 405, 422)
        assert live.http.delete(f"/adapters/{name}", headers=BEARER).status_code in (404, 405, 422)
        assert asked == []


def test_a_hub_is_served_from_and_not_published_to(model_folder, elsewhere, tmp_path, hub):
    version = elsewhere("fr", seed=88)
    hub.repos["somebody/speech"] = tmp_path / "adapters"
    with serving(settings(model_folder, "hf://somebody/speech")) as live:
        assert told(live, "fr") == ("remote", "remote", version)
        assert said(live, "fr")[0] == version
        refused = put(live, "fr", files_of(tmp_path, "fr"))
        assert code(refused) == (507, "store_not_writable")
        assert "hf://somebody/speech can be read only" in refused.json()["error"]["message"]
