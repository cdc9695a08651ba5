"""What others write to the folder, what running requests keep, and what is pinned, while versions come and go."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from adapters.registry import RegisteredAdapter
from adapters.store import AdapterStore
from app.engine import publishing as publishing_module
from app.settings import Settings
from tests.app.live import Live, serving, wait_until
from tests.app.recordings import recording
from tests.app.routes.publisher import BEARER, KEY, files_of, open_to_publishers, put, said


@pytest.fixture(scope="module")
def live(folder: Path) -> Iterator[Live]:
    with serving(open_to_publishers(folder)) as server:
        yield server


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


def test_a_newer_version_that_is_broken_can_be_removed(live, elsewhere, folder, tmp_path):
    said(live, "ru")
    elsewhere("ru", seed=79)
    there = folder / "adapters/ru"
    before = {path: path.read_bytes() for path in there.iterdir()}
    (there / "adapter.json").write_bytes(files_of(tmp_path, "ru")["adapter.json"])  # and nothing of it besides
    wait_until(lambda: live.http.get("/adapters/ru").json()["reason"] is not None, timeout_s=20)
    assert live.http.delete("/adapters/ru", headers=BEARER).status_code == 204
    assert live.http.get("/adapters/ru").status_code == 404
    for path, content in before.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    wait_until(lambda: live.http.get("/adapters/ru").status_code == 200, timeout_s=20)


def test_one_that_is_broken_in_an_earlier_store_holds_up_none_in_a_later_one(folder, elsewhere, tmp_path):
    mine = shutil.copytree(folder, tmp_path / "mine")
    (tmp_path / "first/es").mkdir(parents=True)
    (tmp_path / "first/es/adapter.json").write_text("{broken")
    settings = open_to_publishers(mine).model_copy(update={"adapters": (tmp_path / "first",)})
    with serving(settings) as live:
        before, _ = said(live, "es")
        told = [one for one in live.http.get("/adapters").json()["adapters"] if one["name"] == "es"]
        assert [(one["state"], one["version"]) for one in told] == [("ready", before)]
        assert f"the one in {tmp_path}/first is not served: adapter.json is not JSON" in told[0]["reason"]
        version = elsewhere("es", seed=90, to=mine)
        wait_until(lambda: live.http.get("/adapters/es").json()["version"] == version, timeout_s=20)
        assert said(live, "es")[0] == version
        (mine / "adapters/es/adapter.json").unlink()
        wait_until(lambda: live.http.get("/adapters/es").json()["state"] == "failed", timeout_s=20)


def test_odd_folders_are_listed_beside_the_others(live, folder):
    odd = Path(os.fsdecode(os.fsencode(folder / "adapters") + b"/caf\xe9"))
    odd.mkdir()
    (odd / "adapter.json").write_text("{}")
    wait_until(lambda: "caf\\udce9" in [one["name"] for one in live.http.get("/adapters").json()["adapters"]])
    shutil.rmtree(odd)
    wait_until(lambda: len(live.http.get("/adapters").json()["adapters"]) == 3)


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


def test_a_version_that_cannot_be_tried_out_takes_no_other_along(live, elsewhere, folder, monkeypatch):
    publishing = live.app.state.service.engine.publishing
    try_out = publishing._try_out

    async def broken(adapter: RegisteredAdapter) -> None:
        if adapter.name == "fr":
            raise RuntimeError("a bug")
        await try_out(adapter)

    before, _ = said(live, "fr"), said(live, "ru")  # both in use
    monkeypatch.setattr(publishing, "_try_out", broken)
    newer = elsewhere("fr", seed=66, to=folder)
    version = elsewhere("ru", seed=67, to=folder)
    wait_until(lambda: live.http.get("/adapters/ru").json()["version"] == version, timeout_s=20)
    wait_until(lambda: live.http.get("/adapters/fr").json()["reason"] is not None, timeout_s=20)
    assert "a bug" in live.http.get("/adapters/fr").json()["reason"]
    assert said(live, "fr") == before
    monkeypatch.undo()
    wait_until(lambda: live.http.get("/adapters/fr").json()["version"] == newer, timeout_s=60)


@pytest.mark.parametrize("key", [None, KEY])
def test_old_versions_go_in_time_where_somebody_may_publish(model_folder, tmp_path, key, monkeypatch):
    folder = shutil.copytree(model_folder, tmp_path / "swept")
    left = folder / "adapters/fr/weights-0123.safetensors"
    left.write_bytes(b"of an old version")
    monkeypatch.setattr(publishing_module, "SWEEP_GRACE_S", -1.0)
    with serving(Settings.read(models=folder, admin_key=key, watch_s=0.1, threads=1, lanes=1)) as live:
        if key is None:
            time.sleep(2)
            assert left.exists(), "a service that only reads deletes nothing"
        else:
            wait_until(lambda: not left.exists(), timeout_s=20)
        assert live.transcribe(recording("wav-16k"), "adapter=fr").status_code == 200


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
        assert live.http.delete("/adapters/fr", headers=BEARER).status_code == 204
    with serving(settings) as live:  # which does not keep the others from being served
        assert live.transcribe(recording("wav-16k"), "lang=es").status_code == 200
        fourth = elsewhere("fr", seed=85)
        assert put(live, "fr", files_of(tmp_path, "fr")).status_code == 201
        wait_until(lambda: pinned() == (fourth, "device", True), timeout_s=20)
