from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from app.settings import Settings
from tests.app.live import Live, serving
from tests.app.recordings import recording


def test_the_list(live: Live) -> None:
    told = live.http.get("/adapters").json()
    assert told.keys() == {"adapters"}
    assert [adapter["name"] for adapter in told["adapters"]] == ["es", "fr", "ru"]
    spanish = told["adapters"][0]
    assert spanish["language"] == "es"
    assert spanish["default"] is True
    assert spanish["method"] == "bottleneck"
    assert spanish["parameters"] > 1_000
    assert spanish["bytes"] > 2 * spanish["parameters"]
    assert len(spanish["version"]) == 12
    assert (spanish["wer"], spanish["cer"]) == (1.0, 0.9)
    assert (spanish["pinned"], spanish["verified"], spanish["synthetic"]) == (False, True, False)
    assert spanish["licence"] == "CC0-1.0"


def test_where_an_adapter_is(live: Live) -> None:
    version = live.transcribe(recording("wav-16k"), "lang=ru").json()["version"]
    told = live.http.get("/adapters/ru").json()
    assert (told["state"], told["where"], told["reason"], told["version"]) == ("ready", "device", None, version)
    assert told in live.http.get("/adapters").json()["adapters"]


def test_an_adapter_that_there_is_not(live: Live) -> None:
    response = live.http.get("/adapters/de")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "unknown_adapter"
    assert "es, fr, ru" in response.json()["error"]["message"]


@pytest.fixture
def damaged(model_folder: Path, tmp_path: Path) -> Path:
    """fr has a record of another backbone, ru other weights than its record says."""
    folder = shutil.copytree(model_folder, tmp_path / "model")
    record = folder / "adapters" / "fr" / "adapter.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "fingerprint": "0" * 16}))
    weights = next((folder / "adapters" / "ru").glob("weights-*"))
    weights.write_bytes(bytes(weights.stat().st_size))
    return folder


def test_a_bad_adapter_is_told_by_name_and_reason_and_the_others_are_served(damaged: Path) -> None:
    with serving(Settings.read(models=damaged, threads=1)) as live:
        assert live.transcribe(recording("wav-16k"), "lang=es").status_code == 200
        french = live.http.get("/adapters/fr").json()
        assert french["state"] == "failed"
        assert "backbone" in french["reason"]
        assert live.transcribe(recording("wav-16k"), "lang=fr").status_code == 404
        by_name = live.transcribe(recording("wav-16k"), "adapter=fr")
        assert by_name.status_code == 404
        assert "backbone" in by_name.json()["error"]["message"]
        # what only shows when the weights are read
        response = live.transcribe(recording("wav-16k"), "lang=ru")
        assert (response.status_code, response.json()["error"]["code"]) == (503, "adapter_unusable")
        assert response.headers["x-should-retry"] == "false"
        russian = live.http.get("/adapters/ru").json()
        assert (russian["state"], "hash" in russian["reason"]) == ("failed", True)
