"""The other system hears what was said, and is judged as ours is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from adapters.training.manifest import Clip
from benchmarks.clips import EXAMPLES

pytest.importorskip("pocketsphinx")
from benchmarks.sphinx import sphinx_rates


def test_it_is_judged_by_what_it_hears(tmp_path: Path) -> None:
    told = [json.loads(line) for line in (EXAMPLES / "clips.jsonl").read_text().splitlines()]
    text = next(line["text"] for line in told if line["file"] == "en.ogg")
    samples, rate = soundfile.read(EXAMPLES / "en.ogg", dtype="float32")
    assert rate == 16_000
    soundfile.write(tmp_path / "0.flac", samples, rate)
    soundfile.write(tmp_path / "1.flac", np.zeros(8_000, np.float32), rate)
    clips = [Clip(tmp_path / f"{n}.flac", 1.0, text, "en", "asterisk", "CC0-1.0", "test") for n in range(2)]
    cer, wer = sphinx_rates(clips[:1])
    assert 0 < cer < 0.5
    assert 0 < wer < 1
    assert sphinx_rates(clips[1:])[1] == 1.0, "in silence there are no words to be right about"
