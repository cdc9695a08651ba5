"""The service as a process of its own: what its memory does, how it starts and stops."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from tests.app.live import answer, wait_until
from tests.app.recordings import long_silence, tone, wav
from tests.hub import Hub
from tests.mms import LANGUAGES, make_mms

ROOT = Path(__file__).resolve().parents[3]


@contextlib.contextmanager
def process(log: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TONGUES_")}
    command = [sys.executable, "-m", "app.cli", "serve", *arguments]
    with log.open("wb") as out:
        running = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, env={**clean, **environment})
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def is_ready(http: httpx.Client) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return http.get("/health/ready").status_code == 200
    return False


def resident_mib(process_id: int, field: str) -> float:
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(re.findall(rf"{field}:\s+(\d+) kB", status)[0]) / 1024


@pytest.fixture(scope="module")
def served(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, httpx.Client]]:
    """A process id and a client."""
    port, log = free_port(), tmp_path_factory.mktemp("serve") / "log"
    with (
        process(log, "--models", str(model_folder), "--port", str(port), TONGUES_MAX_AUDIO_S="3600") as running,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as http,
    ):
        wait_until(lambda: is_ready(http) or running.poll() is not None)
        assert running.poll() is None, log.read_text()
        yield running.pid, http
    assert "Traceback" not in log.read_text()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_hours_in_a_small_file_cost_no_memory(served: tuple[int, httpx.Client]) -> None:
    process_id, http = served
    http.post("/transcribe?lang=es", content=wav(tone(60.0)))  # whatever grows with the first request
    before = resident_mib(process_id, "VmRSS")
    for length_stated in (True, False):
        data = long_silence(1.5, length_stated=length_stated)
        assert len(data) < 300_000
        response = http.post("/transcribe?lang=es", content=data)
        assert (response.status_code, response.json()["error"]["code"]) == (413, "audio_too_long")
    assert resident_mib(process_id, "VmHWM") - before < 60  # an hour and a half is 330 MiB


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_ten_minutes_cost_little_memory(served: tuple[int, httpx.Client]) -> None:
    process_id, http = served
    http.post("/transcribe?lang=es", content=wav(np.tile(tone(60.0), 3)))  # as many rows in a batch as will ever be
    before = resident_mib(process_id, "VmRSS")
    data = wav(np.tile(tone(60.0), 10))
    told = http.post("/transcribe?lang=es", content=data).json()
    assert (told["duration_s"], told["truncated"]) == (600.0, False)
    assert len(told["text"]) > 600
    assert resident_mib(process_id, "VmHWM") - before < 60  # the upload lies on disk


def test_a_connection_is_kept_for_longer_than_clients_keep_theirs(served: tuple[int, httpx.Client]) -> None:
    port = served[1].base_url.port
    assert port
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        for waits_s in (0, 6):  # httpx's clients, OpenAI's among them, give an unused one up after 5 s
            time.sleep(waits_s)
            connection.request("GET", "/health/live")
            told = connection.getresponse()
            told.read()
            assert (told.status, connection.sock is not None) == (200, True)


def test_a_checkpoint_of_the_hub_is_fetched_once_and_served_without_it(hub: Hub, tmp_path: Path) -> None:
    make_mms(tmp_path / "repo")
    hub.repos["meta/mms-tiny"] = tmp_path / "repo"
    speech = (ROOT / "examples/fr.ogg").read_bytes()
    port, ours = free_port(), {"HF_HOME": str(tmp_path / "cache"), "TONGUES_MODELS": str(tmp_path / "mine")}
    texts = []
    for number, (arguments, environment) in enumerate(
        [
            (["--backbone", "meta/mms-tiny"], {}),
            ([], {"TONGUES_BACKBONE": "meta/mms-tiny", "HF_HUB_OFFLINE": "1"}),
        ]
    ):
        log = tmp_path / f"log{number}"
        hub.away = number > 0
        with (
            process(log, *arguments, "--port", str(port), **ours, **environment) as running,
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as http,
        ):
            wait_until(lambda: is_ready(http) or running.poll() is not None)
            assert running.poll() is None, log.read_text()
            assert http.get("/health/ready").json()["backbone"] == f"meta/mms-tiny@{hub.commit('meta/mms-tiny')}"
            names = {told["name"] for told in http.get("/adapters").json()["adapters"]}
            assert names == (set(LANGUAGES) if number == 0 else {"fra"}), "without a hub, what was fetched before"
            answer = http.post("/transcribe?lang=fr", content=speech)
            assert answer.status_code == 200
            texts.append(answer.json()["text"])
        told = log.read_text()
        assert len(re.findall("tongues.hub fetching meta/mms-tiny@.* from http.*: 0.5 MB", told)) == (number == 0)
        assert ("tongues.hub fetched 0.5 of 0.5 MB" in told) == (number == 0)
        assert "Traceback" not in told
        assert "\n\n" not in told
    assert texts[0] == texts[1]
    assert len(texts[0]) > 10
    assert hub.asked["model.safetensors"] == hub.asked["adapter.fra.safetensors"] == 1


def test_told_to_stop_it_finishes_what_it_took(model_folder: Path, tmp_path: Path) -> None:
    port = free_port()
    with process(tmp_path / "log", "--models", str(model_folder), "--port", str(port)) as running:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as http:
            wait_until(lambda: is_ready(http))
        answers: list[int] = []

        def ask() -> None:
            response = httpx.post(f"http://127.0.0.1:{port}/transcribe?lang=es", content=upload(), timeout=300)
            answers.append(response.status_code)

        def upload() -> Iterator[bytes]:
            data = wav(tone(5.0))
            yield data[:1000]
            with httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
                wait_until(lambda: "\ntongues_permits_taken 1.0\n" in http.get("/metrics").text)
            running.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            yield data[1000:]

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(300)
        assert answers == [200]
        assert running.wait(120) in (0, -signal.SIGTERM)
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_what_cannot_be_served_ends_with_a_reason(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone" / "config.json").write_text('{"model_type": "whisper"}')
    with process(tmp_path / "log", "--models", str(tmp_path), "--port", "0") as running:
        assert running.wait(300) == 1
    assert "model_type is 'whisper'" in (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()
    if not torch.cuda.is_available():
        with process(tmp_path / "log", "--models", str(model_folder), "--port", "0", "--device", "cuda") as running:
            assert running.wait(300) == 1
        assert "TONGUES_DEVICE=cuda, and no GPU" in (tmp_path / "log").read_text()
        assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("arguments", "environment", "reason"),
    [
        (["--models", "no/such/folder"], {}, "no model in no/such/folder"),
        (["--device", "abacus"], {}, "device: "),
        ([], {"TONGUES_PORT": "high"}, "port: .*not 'high' .TONGUES_PORT."),
    ],
)
def test_what_cannot_be_set_is_told_in_a_line(
    arguments: list[str], environment: dict[str, str], reason: str, model_folder: Path, tmp_path: Path
) -> None:
    environment = {"TONGUES_MODELS": str(model_folder), **environment}
    with process(tmp_path / "log", *arguments, **environment) as running:
        assert running.wait(300) == 1
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert re.search(f"^error: .*{reason}", line)


def test_what_is_no_http_is_refused_in_the_one_shape(served: tuple[int, httpx.Client]) -> None:
    _, http = served
    for line in ("POST /transcribe?lang=es&hotwords=niño HTTP/1.1", "nothing at all"):
        with socket.create_connection(("127.0.0.1", http.base_url.port or 0), timeout=20) as connection:
            connection.sendall(f"{line}\r\nHost: x\r\n\r\n".encode())
            status, told = answer(connection)
        assert (status, told["error"]["code"]) == (400, "not_http")
        assert "percent-encoded" in told["error"]["message"]


@pytest.mark.parametrize("finished", [True, False])
def test_told_to_stop_it_answers_what_runs_and_takes_nothing_new(
    model_folder: Path, tmp_path: Path, finished: bool
) -> None:
    port, data = free_port(), wav(tone(2.0))
    settings = {"TONGUES_DRAIN_S": "60" if finished else "4"}
    with (
        process(tmp_path / "log", "--models", str(model_folder), "--port", str(port), **settings) as running,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
    ):
        wait_until(lambda: is_ready(http) or running.poll() is not None)
        head = f"POST /transcribe?lang=es HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", port), timeout=60) as upload:
            upload.sendall(head + data[: len(data) // 2])
            wait_until(lambda: "tongues_requests_running 2.0" in http.get("/metrics").text)
            running.send_signal(signal.SIGTERM)
            wait_until(lambda: http.get("/health/ready").status_code == 503)
            assert http.get("/health/ready").json()["status"] == "draining"
            assert http.get("/health/live").status_code == 200
            refused = http.post("/transcribe?lang=es", content=data)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
            assert refused.headers["retry-after"] == "5"
            if finished:
                upload.sendall(data[len(data) // 2 :])
            status, told = answer(upload)
        if finished:
            assert (status, told["language"]) == (200, "es")
        else:
            assert (status, told["error"]["code"]) == (503, "shutting_down")
        running.wait(timeout=30)
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    assert f"status={status}" in log
