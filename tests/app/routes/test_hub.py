"""The service over a checkpoint out of a hub, whose languages come when they are asked for."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.settings import Settings
from tests.app.live import Live, serving, wait_until
from tests.hub import Hub
from tests.mms import LANGUAGES, make_mms

SPEECH = (Path(__file__).parents[3] / "examples/fr.ogg").read_bytes()


@pytest.fixture
def repo(hub: Hub, tmp_path: Path) -> str:
    make_mms(tmp_path / "repo")
    name = f"meta/{tmp_path.name}"
    hub.repos[name] = tmp_path / "repo"
    return name


@pytest.fixture
def live(hub: Hub, repo: str, tmp_path: Path) -> Iterator[Live]:
    settings = Settings.read(backbone=repo, models=tmp_path / "mine", threads=1)
    with serving(settings) as server:
        yield server


def adapters(live: Live) -> dict[str, dict]:
    return {told["name"]: told for told in live.http.get("/adapters").json()["adapters"]}


def test_languages_are_fetched_when_they_are_asked_for(hub, repo, live):
    listed = adapters(live)
    assert set(listed) == set(LANGUAGES)
    assert live.http.get("/health/ready").json()["backbone"] == f"{repo}@{hub.commit(repo)[:12]}"
    assert (listed["fra"]["state"], listed["fra"]["where"]) == ("remote", "remote")
    assert (listed["fra"]["language"], listed["fra"]["verified"]) == ("fr", True)
    answer = live.transcribe(SPEECH, "lang=fr")
    assert answer.status_code == 200
    assert (answer.json()["adapter"], answer.json()["language"]) == ("fra", "fr")
    assert adapters(live)["fra"]["where"] == "device"
    assert hub.asked["adapter.fra.safetensors"] == 1
    assert live.transcribe(SPEECH, "lang=fra").json()["text"] == answer.json()["text"]
    assert hub.asked["adapter.fra.safetensors"] == 1


def test_scripts_are_named_and_never_guessed(live):
    refused = live.transcribe(SPEECH, "lang=ug")
    assert refused.status_code == 409
    assert "uig-script_arabic, uig-script_cyrillic" in refused.json()["error"]["message"]
    for query in ("lang=ug-Cyrl", "lang=uig-script_cyrillic", "adapter=uig-script_cyrillic"):
        assert live.transcribe(SPEECH, query).json()["adapter"] == "uig-script_cyrillic"


def test_no_language_can_be_told(live):
    refused = live.transcribe(SPEECH, "lang=auto")
    assert refused.status_code == 400
    assert "change every layer" in refused.json()["error"]["message"]


def test_others_are_served_while_one_is_slow_to_come(hub, live):
    assert live.transcribe(SPEECH, "lang=de").status_code == 200
    hub.faults["adapter.fra.safetensors"], hub.slow_s = "slow", 6.0
    answers: list[int] = []
    waiting = threading.Thread(
        target=lambda: answers.append(live.transcribe(SPEECH, "lang=fr").status_code), daemon=True
    )
    waiting.start()
    wait_until(lambda: hub.asked["adapter.fra.safetensors"])
    assert adapters(live)["fra"]["state"] == "loading"
    began = time.monotonic()
    assert live.transcribe(SPEECH, "lang=de").status_code == 200  # resident
    assert live.transcribe(SPEECH, "lang=ug-Arab").status_code == 200  # fetched meanwhile
    assert not answers, f"both were answered before the slow one, after {time.monotonic() - began:.1f} s"
    waiting.join()
    assert answers == [200]


@pytest.mark.parametrize("fault", ["unavailable", "wrong", "missing"])
def test_a_language_that_cannot_be_had_fails_alone_and_comes_back(hub, live, fault):
    hub.faults["adapter.fra.safetensors"] = fault
    failed = live.transcribe(SPEECH, "lang=fr")
    assert failed.status_code >= 500
    assert "fra" in failed.json()["error"]["message"]
    told = adapters(live)["fra"]
    assert told["state"] == "failed"
    assert "adapter.fra.safetensors" in told["reason"]
    assert live.transcribe(SPEECH, "lang=de").status_code == 200
    hub.faults.clear()
    wait_until(lambda: live.transcribe(SPEECH, "lang=fr").status_code == 200, timeout_s=60)


def test_adapters_are_published_beside_those_of_the_hub(hub, repo, tmp_path):
    key = "0123456789abcdef"
    settings = Settings.read(backbone=repo, models=tmp_path / "mine", threads=1, admin_key=key)
    with serving(settings) as live:
        removed = live.http.delete("/adapters/fra", headers={"Authorization": f"Bearer {key}"})
        assert removed.status_code >= 400
        assert "read only" in removed.json()["error"]["message"]
        assert "fra" in adapters(live)


def test_a_restart_without_a_network_serves_what_was_fetched(hub, repo, live, tmp_path):
    said = live.transcribe(SPEECH, "lang=fr").json()["text"]
    hub.away = True
    with serving(Settings.read(backbone=repo, models=tmp_path / "mine", threads=1)) as again:
        assert set(adapters(again)) == {"fra"}
        assert again.transcribe(SPEECH, "lang=fr").json()["text"] == said


def test_a_hub_that_cannot_be_reached_is_told_by_the_probes(hub, tmp_path):
    settings = Settings.read(backbone="nobody/nothing", models=tmp_path / "mine")
    with serving(settings, ready=False) as live:
        wait_until(lambda: live.http.get("/health/ready").json()["status"] == "failed")
        assert "no such repository" in live.http.get("/health/ready").json()["reason"]


def test_the_folder_of_such_a_checkpoint_serves_too(tmp_path):
    make_mms(tmp_path / "mms")
    shutil.rmtree(tmp_path / "mine", ignore_errors=True)
    with serving(Settings.read(backbone=str(tmp_path / "mms"), models=tmp_path / "mine", threads=1)) as live:
        assert live.transcribe(SPEECH, "lang=fr").json()["adapter"] == "fra"
