"""``tongues backbone``: what it fetches and converts, and how far it has come."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.builders import reference
from tests.hub import Hub

ROOT = Path(__file__).resolve().parents[3]


def run(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", "backbone", *arguments],
        cwd=ROOT,
        env={**os.environ, "HF_HOME": str(tmp_path / "home"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("disabled", ["0", "1"])
def test_it_fetches_and_shows_how_far_it_is(hub: Hub, tmp_path: Path, disabled: str) -> None:
    reference("wav2vec2-pre-norm-layer").save_pretrained(tmp_path / "repo")
    hub.repos["someone/small"] = tmp_path / "repo"
    done = run(tmp_path, "fetch", "someone/small", HF_HUB_DISABLE_PROGRESS_BARS=disabled)
    assert done.returncode == 0, done.stderr
    (size,) = re.findall(r"fetching someone/small@.* from http.*: ([\d.]+) MB", done.stderr)
    assert f"fetched {size} of {size} MB" in done.stderr
    pin = f"someone/small@{hub.commit('someone/small')}"
    assert f"to stay at it: {pin}" in done.stderr
    assert done.stdout.startswith(f"{pin}: fingerprint ")


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
