"""What the bare installation lacks: commands that need more say what to install, in one line."""

from __future__ import annotations

import subprocess
import sys

import pytest

RUN = "import sys; sys.modules[{missing!r}] = None; from app.cli import main; sys.argv = {argv!r}; main()"


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("accelerate", ["train", "--data", "m.jsonl", "--models", "m", "--lang", "es"]),
        ("kaldi_native_fbank", ["pretrain", "--data", "m.jsonl", "--out", "m"]),
        ("accelerate", ["results", "--data", "m.jsonl", "--models", "m"]),
        ("accelerate", ["routes", "--data", "m.jsonl"]),
        ("sklearn", ["languages", "--data", "m.jsonl", "--models", "m"]),
    ],
)
def test_the_reader_is_told_what_to_install(missing: str, command: list[str]) -> None:
    code = RUN.format(missing=missing, argv=["tongues", *command])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert (
        line
        == f"error: {'pretraining' if 'kaldi' in missing else 'training'} needs {missing}: pip install 'tongues[train]'"
    )
