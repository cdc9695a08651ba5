"""A corpus that a tiny model learns in seconds: every letter is a tone of its own pitch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from adapters.frontend import SAMPLE_RATE
from adapters.training.backbone_folder import BackboneShape
from adapters.training.manifest import Clip, Split, write_manifest

LETTERS = {"es": "aeio", "fr": "abcd"}
PITCH_HZ = {letter: 300 * 1.5**i for i, letter in enumerate("aeiobcd")} | {"z": 3_700.0}
_LETTER_S, _GAP_S = 0.12, 0.06
SHAPE = BackboneShape(32, layers=2, heads=2, feed_forward=64, conv_channels=(16,) * 7, position_kernel=16)
COUNTS: dict[Split, int] = {"train": 24, "dev": 4, "test": 4}


def spoken(text: str, seed: int = 0) -> np.ndarray:
    """(N,) float32: a tone a letter, a gap after each, a longer one between words, noise under it all."""
    parts = [np.zeros(int(0.1 * SAMPLE_RATE))]
    for letter in text:
        if letter != " ":
            time_s = np.arange(int(_LETTER_S * SAMPLE_RATE)) / SAMPLE_RATE
            parts.append(0.3 * np.sin(2 * np.pi * PITCH_HZ[letter] * time_s) * np.hanning(time_s.size))
        parts.append(np.zeros(int(_GAP_S * SAMPLE_RATE * (3 if letter == " " else 1))))
    parts.append(np.zeros(int(0.1 * SAMPLE_RATE)))
    samples = np.concatenate(parts)
    noise = np.random.default_rng(seed).standard_normal(samples.size) * 0.003
    return (samples + noise).astype(np.float32)


def write_corpus(folder: Path, *, counts: dict[Split, int] | None = None, foreign: str = "") -> Path:
    """Clips of both languages and their manifest, whose path is returned.

    ``foreign``: a letter that the dev and test texts have and the train texts lack.
    """
    rng = np.random.default_rng(1)
    clips: list[Clip] = []
    for language, letters in LETTERS.items():
        for split, count in (counts or COUNTS).items():
            for number in range(count):
                words = ["".join(rng.choice(list(letters), rng.integers(2, 4))) for _ in range(2)]
                text = " ".join(words) + (foreign if split != "train" else "")
                path = folder / language / f"{split}-{number}.flac"
                path.parent.mkdir(parents=True, exist_ok=True)
                samples = spoken(text, seed=len(clips))
                soundfile.write(path, samples, SAMPLE_RATE)
                source = "odd" if number % 4 == 3 else "even"
                seconds = samples.size / SAMPLE_RATE
                clips.append(Clip(path, seconds, text, language, source, "CC0-1.0", split))
    write_manifest(folder / "manifest.jsonl", clips)
    return folder / "manifest.jsonl"
