"""Whose a run's folder is, and checkpoints that a kill leaves whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from adapters.errors import DataError
from adapters.training.run_folder import claim, load_checkpoint, save_checkpoint


def test_the_same_run_may_come_again(tmp_path):
    for _ in range(2):
        claim(tmp_path / "run", {"steps": 10, "layers": (1, 2), "text": "é"})
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == {"steps": 10, "layers": [1, 2], "text": "é"}


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        ({"steps": 11, "seed": 0}, "steps"),
        ({"steps": 10}, "seed"),
        ({"steps": 11, "seed": 0, "size": 1}, "size, steps"),
    ],
)
def test_another_run_is_refused_naming_the_difference(tmp_path, other, differs):
    claim(tmp_path, {"steps": 10, "seed": 0})
    with pytest.raises(DataError, match=f"holds a run that differs in {differs}; take another folder"):
        claim(tmp_path, other)


def test_a_checkpoint_comes_back_as_it_went(tmp_path):
    path = tmp_path / "a.pt"
    assert load_checkpoint(path, "cpu") is None
    save_checkpoint(path, {"step": 3, "weights": {"w": torch.arange(3.0)}, "average": [torch.ones(2)]})
    found = load_checkpoint(path, "cpu")
    assert found is not None
    assert found["step"] == 3
    assert torch.equal(found["weights"]["w"], torch.arange(3.0))


def test_a_kill_while_saving_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    save_checkpoint(path, {"step": 1})

    def torn(state, file):
        file.write(b"half a checkp")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, {"step": 2})
    assert load_checkpoint(path, "cpu") == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.skipif(sys.platform != "linux", reason="a file's size is bounded as a disk's is")
def test_a_disk_that_is_full_leaves_the_checkpoint_before_and_nothing_else(tmp_path):
    """However much of it was written: torch tells that in two ways."""
    script = """
import resource, signal, sys, torch
from pathlib import Path
from adapters.errors import DataError
from adapters.training.run_folder import load_checkpoint, save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path("a.pt")
save_checkpoint(path, {"step": 1})
for size in (100, 5_000, 300_000, 1_000_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        save_checkpoint(path, {"step": 2, "weights": [torch.ones(100_000) for _ in range(4)]})
    except DataError as error:
        assert "a.pt: the checkpoint cannot be written" in str(error), error
    else:
        raise AssertionError(size)
assert load_checkpoint(path, "cpu") == {"step": 1}
"""
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=here, check=True)
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.skipif(sys.platform != "linux", reason="a file's size is bounded as a disk's is")
def test_a_disk_that_is_full_is_told_with_the_file_that_did_not_fit(tones, tmp_path):
    script = """
import resource, signal, sys
from pathlib import Path
from adapters.training.data import AudioCache
from adapters.training.manifest import read_manifest, write_text_atomically
from adapters.training.progress import Progress
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
clips = read_manifest(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
for write, file in (
    (lambda: AudioCache(clips, Path("cache")), "cache/samples-"),
    (lambda: write_text_atomically(Path("run.json"), "x" * 99), "run.json"),
    (lambda: Progress(Path("progress.jsonl"), "es", 4, 0).note(1, ctc=1.0), "progress.jsonl"),
):
    try:
        write()
    except OSError as error:
        assert str(error).startswith(f"[Errno 27] File too large: '{file}"), error
    else:
        raise AssertionError(file)
"""
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    subprocess.run([sys.executable, "-c", script, str(tones)], cwd=tmp_path, env=here, check=True)


def test_a_folder_in_which_another_process_trains_is_refused(tmp_path):
    script = "from pathlib import Path; from adapters.training.run_folder import claim; claim(Path('.'), {})"
    with subprocess.Popen(
        [sys.executable, "-c", f"{script}; print('mine', flush=True); input()"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(DataError, match="another process trains in it"):
            claim(tmp_path, {})
        claim(tmp_path, {}, rank=1)
        other.communicate("\n")
    claim(tmp_path, {})
