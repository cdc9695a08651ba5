"""``tongues backbone``: what it fetches and converts, and how far it has come."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.app.live import wait_until
from tests.builders import reference
from tests.hub import Hub

ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, "-m", "app.cli", "backbone"]


def run(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env={**os.environ, "HF_HOME": str(tmp_path / "home"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@contextlib.contextmanager
def running(tmp_path: Path, log: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command that goes on meanwhile; what it says is in ``log``."""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home")}
    with (tmp_path / log).open("wb") as out:
        process = subprocess.Popen([*COMMAND, *arguments], cwd=ROOT, stdout=out, stderr=out, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def came(tmp_path: Path) -> int:
    """How much of weights lies on the disk, in bytes."""
    return sum(path.stat().st_size for path in tmp_path.glob("home/hub/*/blobs/*.tongues.incomplete"))


def weights(tmp_path: Path) -> bytes:
    (place,) = tmp_path.glob("home/hub/*/snapshots/*/model.safetensors")
    return place.read_bytes()


@pytest.fixture
def repo(hub: Hub, tmp_path: Path) -> Path:
    """The folder of ``someone/small``."""
    reference("wav2vec2-pre-norm-layer").save_pretrained(tmp_path / "repo")
    hub.repos["someone/small"] = tmp_path / "repo"
    return tmp_path / "repo"


@pytest.mark.parametrize("disabled", ["0", "1"])
def test_it_fetches_and_shows_how_far_it_is(hub: Hub, repo: Path, tmp_path: Path, disabled: str) -> None:
    done = run(tmp_path, "fetch", "someone/small", HF_HUB_DISABLE_PROGRESS_BARS=disabled)
    assert done.returncode == 0, done.stderr
    (size,) = re.findall(r"fetching someone/small@.* from http.*: ([\d.]+) MB", done.stderr)
    assert f"fetched {size} of {size} MB" in done.stderr
    pin = f"someone/small@{hub.commit('someone/small')}"
    assert f"to stay at it: {pin}" in done.stderr
    assert done.stdout.startswith(f"{pin}: fingerprint ")


def test_it_fetches_all_that_says_how_texts_are_made(hub: Hub, repo: Path, tmp_path: Path) -> None:
    """Without a hub nobody would miss it."""
    names = ("added_tokens.json", "special_tokens_map.json", "tokenizer_config.json", "vocab.json")
    told = dict.fromkeys(names, '{"pad_token": "<s>"}')
    for name, content in told.items():
        (repo / name).write_text(content)
    assert run(tmp_path, "fetch", "someone/small").returncode == 0
    (snapshot,) = (path.parent for path in tmp_path.glob("home/hub/*/snapshots/*/config.json"))
    assert {name: (snapshot / name).read_text() for name in told} == told


def test_killed_in_the_middle_it_goes_on(hub: Hub, repo: Path, tmp_path: Path) -> None:
    content = (repo / "model.safetensors").read_bytes()
    hub.held["model.safetensors"] = 200_000
    with running(tmp_path, "log", "fetch", "someone/small") as process:
        wait_until(lambda: came(tmp_path) == 200_000 or process.poll() is not None)
        assert process.poll() is None, (tmp_path / "log").read_text()
        process.send_signal(signal.SIGKILL)
        process.wait()
    hub.released.set()
    done = run(tmp_path, "fetch", "someone/small")
    assert done.returncode == 0, done.stderr
    assert hub.ranges == [("model.safetensors", 200_000)]
    assert hub.sent["model.safetensors"] == len(content)
    assert weights(tmp_path) == content
    assert came(tmp_path) == 0
    hub.away = True
    again = run(tmp_path, "fetch", "someone/small", HF_HUB_OFFLINE="1")
    assert (again.returncode, again.stdout) == (0, done.stdout), again.stderr


def test_two_at_once_fetch_it_once(hub: Hub, repo: Path, tmp_path: Path) -> None:
    content = (repo / "model.safetensors").read_bytes()
    hub.held["model.safetensors"] = 200_000
    with running(tmp_path, "log1", "fetch", "someone/small") as first:
        wait_until(lambda: came(tmp_path) == 200_000 or first.poll() is not None)
        with running(tmp_path, "log2", "fetch", "someone/small") as second:
            waits = "another process fetches it, and is waited for"
            wait_until(lambda: waits in (tmp_path / "log2").read_text() or second.poll() is not None)
            hub.released.set()
            ended = (first.wait(300), second.wait(300))
    assert ended == (0, 0), (tmp_path / "log1").read_text() + (tmp_path / "log2").read_text()
    assert weights(tmp_path) == content
    assert hub.sent["model.safetensors"] == len(content)


def test_a_full_disk_is_told_and_made_room_on_it_goes_on(hub: Hub, repo: Path, tmp_path: Path) -> None:
    limited = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, -1)); "
    limited += "sys.argv[0] = 'tongues'; runpy.run_module('app.cli', run_name='__main__')"
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", limited, "backbone", "fetch", "someone/small"]
    full = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert full.returncode == 1
    told = full.stderr.splitlines()[-1]
    assert re.search(
        r"^error: model.safetensors of someone/small cannot be written to .*/blobs: File too large; ", told
    )
    assert "make room for 0.2 MB more, and it goes on, or name another place in HF_HOME" in told
    done = run(tmp_path, "fetch", "someone/small")
    assert done.returncode == 0, done.stderr
    assert weights(tmp_path) == (repo / "model.safetensors").read_bytes()
    assert hub.ranges


def test_it_converts_and_shows_how_far_it_is(hub: Hub, tmp_path: Path) -> None:
    model = reference("wav2vec2-pre-norm-layer")
    model.config.save_pretrained(tmp_path / "repo")
    torch.save(model.state_dict(), tmp_path / "repo" / "pytorch_model.bin")
    hub.repos["someone/pickled"] = tmp_path / "repo"
    done = run(tmp_path, "convert", "someone/pickled", "--out", str(tmp_path / "made"))
    assert done.returncode == 0, done.stderr
    assert "fetching pytorch_model.bin of someone/pickled@" in done.stderr
    assert re.search(r"fetched ([\d.]+) of \1 MB", done.stderr)
    assert (tmp_path / "made" / "model.safetensors").is_file()


def test_what_cannot_be_had_is_told_in_a_line(hub: Hub, tmp_path: Path) -> None:
    done = run(tmp_path, "fetch", "nobody/nothing")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert re.search(r"^error: .*no such repository", line)
