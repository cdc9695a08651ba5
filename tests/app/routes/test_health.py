from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.backbone import fingerprint, read_config
from adapters.encoder import size_of
from adapters.registry import Registry
from adapters.store import AdapterStore
from app.engine.engine import Engine
from app.engine.runner import Ran, Runner
from app.service import make_engine
from app.settings import Settings
from tests.app.live import Live, serving, wait_until
from tests.app.recordings import recording


class FakeEngine:
    """Stands where an engine that cannot be had on purpose would: one that starts slowly, fails, or has a bug."""

    def __init__(self, settings: Settings, gate: threading.Event | None = None, error: Exception | None = None) -> None:
        backbone = settings.models / "backbone"
        config = read_config(backbone)
        stores = [AdapterStore.at(where) for where in settings.adapter_stores]
        self.registry = Registry(stores, fingerprint(backbone), size_of(config))
        self.source = str(backbone)
        self.gate, self.error = gate, error
        self.ready = False
        self.failure: str | None = None

    async def start(self) -> None:
        if self.gate is not None:
            await asyncio.to_thread(self.gate.wait)
        elif self.error is not None:
            raise self.error
        self.ready = True

    def admit(self) -> Any:
        raise RuntimeError("a bug with a secret in it")

    def give_up(self) -> None:
        """Nothing: it downloads nothing."""

    async def drain(self) -> None:
        self.ready = False


def settings_of(model_folder: Path) -> Settings:
    return Settings.read(models=model_folder)


def test_alive_at_once_and_ready_once_warm(model_folder: Path) -> None:
    gate, ready = threading.Event(), threading.Event()
    with serving(
        settings_of(model_folder), ready=False, make=lambda s: FakeEngine(s, gate), on_ready=ready.set
    ) as live:
        try:
            assert live.http.get("/health/live").status_code == 200
            waiting = live.http.get("/health/ready")
            assert (waiting.status_code, waiting.json()["status"]) == (503, "starting")
            for path in ("/adapters", "/v1/models"):
                refused = live.http.get(path)
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "starting")
                assert refused.headers["retry-after"] == "2"
            assert live.transcribe(b"x").status_code == 503
            assert live.http.get("/metrics").status_code == 200
            assert not ready.is_set()
        finally:
            gate.set()
        wait_until(lambda: live.http.get("/health/ready").status_code == 200)
        assert ready.is_set()
        told = live.http.get("/health/ready").json()
        assert told == {"status": "ok", "backbone": str(model_folder / "backbone")}


def test_a_model_that_cannot_be_loaded(model_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    failures: list[int] = []
    options: dict[str, Any] = {
        "make": lambda s: FakeEngine(s, error=RuntimeError("no such kernel")),
        "on_failure": lambda: failures.append(1),
    }
    with serving(settings_of(model_folder), ready=False, **options) as live:
        wait_until(lambda: live.http.get("/health/live").status_code == 503)
        told = live.http.get("/health/ready")
        assert (told.status_code, told.json()["status"]) == (503, "failed")
        assert "no such kernel" in told.json()["reason"]
        assert live.transcribe(b"x").json()["error"]["code"] == "backbone_unusable"
    assert failures == [1]
    assert "no such kernel" in caplog.text


def test_a_bug_is_told_in_the_one_shape_and_logged_with_the_id(
    model_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(settings_of(model_folder), make=FakeEngine) as live:
        response = live.transcribe(b"x", headers={"X-Request-Id": "r-17"})
    assert response.status_code == 500
    error = response.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("server_error", "internal_error", None)
    assert "secret" not in response.text
    assert response.headers["x-request-id"] == "r-17"
    assert "r-17" in caplog.text
    assert "a bug with a secret in it" in caplog.text


class Mortal(Runner):
    """A runner whose device dies when it is told to."""

    dead = threading.Event()

    def forward(self, *given: Any) -> Ran:
        self._live()
        return super().forward(*given)

    def trial_s(self, rows: int) -> float:
        self._live()
        return super().trial_s(rows)

    def _live(self) -> None:
        if self.dead.is_set():
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


def test_a_device_that_died_is_told_until_it_computes_again(model_folder: Path) -> None:
    def make(settings: Settings) -> Engine:
        engine = make_engine(settings)
        engine.runner_class = Mortal
        return engine

    Mortal.dead.clear()
    with serving(Settings.read(models=model_folder, threads=1, lanes=1), make=make) as live:
        assert live.transcribe(recording("wav-16k")).status_code == 200
        Mortal.dead.set()
        assert live.transcribe(recording("wav-16k")).status_code == 500
        wait_until(lambda: live.http.get("/health/live").status_code == 503)  # once a forward was tried again
        for probe in ("live", "ready"):
            told = live.http.get(f"/health/{probe}")
            assert (told.status_code, told.json()["status"]) == (503, "failed")
            assert "illegal memory access" in told.json()["reason"]
        assert live.metric("tongues_ready") == 0
        Mortal.dead.clear()
        assert live.transcribe(recording("wav-16k")).status_code == 200
        assert live.http.get("/health/live").status_code == 200


def test_metrics(live: Live) -> None:
    before = live.metric("tongues_batch_rows_count")
    live.transcribe(recording("wav-16k"), "lang=fr")
    live.http.get("/no/such/path")
    text = live.http.get("/metrics").text
    assert live.metric("tongues_batch_rows_count") > before
    assert live.metric("tongues_ready") == 1
    assert 'tongues_requests_total{method="POST",route="/transcribe",status="200"}' in text
    assert 'tongues_requests_total{method="GET",route="none",status="404"}' in text
    assert 'tongues_stage_seconds_count{stage="engine"}' in text
    assert 'tongues_adapters{state="registered"} 3.0' in text
    assert 'tongues_audio_seconds_total{language="fr"}' in text


def test_documents(live: Live) -> None:
    description = live.http.get("/openapi.json").json()
    assert {"/transcribe", "/adapters", "/adapters/{name}", "/v1/audio/transcriptions", "/health/ready"} <= set(
        description["paths"]
    )
    body = description["paths"]["/transcribe"]["post"]["requestBody"]["content"]
    assert body.keys() == {"multipart/form-data", "audio/*"}
    assert live.http.get("/docs").status_code == 200
