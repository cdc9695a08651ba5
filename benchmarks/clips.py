"""The recordings in examples/, whole and cut: every system hears the same seconds of the same voices."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

from adapters.frontend import SAMPLE_RATE

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
LENGTHS_S = {"1-15 s": (1.0, 15.0), "1-2 s": (1.0, 2.0), "2 s": (2.0, 2.0)}
"""Shortest and longest clip of each set; lengths between are spread evenly over their logarithm."""

CLIPS = 64
"""Clips of a set."""


@dataclass(frozen=True)
class Recording:
    """A file to send over HTTP."""

    name: str
    content: bytes
    seconds: float


def read_recordings() -> list[Recording]:
    """The recordings, as they lie."""
    lines = [json.loads(line) for line in (EXAMPLES / "clips.jsonl").read_text().splitlines()]
    return [Recording(line["file"], (EXAMPLES / line["file"]).read_bytes(), line["seconds"]) for line in lines]


@cache
def cut(name: str) -> tuple[np.ndarray, ...]:
    """The set ``name`` of :data:`LENGTHS_S`: 64 clips (N,) float32 at 16 kHz, the same in every process.

    The recordings one after the other, cut to pieces, which begin again where they end.
    """
    shortest_s, longest_s = LENGTHS_S[name]
    speech = _speech()
    rng = np.random.default_rng(0)
    lengths = np.exp(np.linspace(np.log(shortest_s), np.log(longest_s), CLIPS)) * SAMPLE_RATE
    ends = np.cumsum(rng.permutation(lengths).astype(int))
    begins = np.concatenate([[0], ends[:-1]])
    return tuple(speech.take(np.arange(b, e), mode="wrap") for b, e in zip(begins, ends, strict=True))


def usual(count: int) -> list[np.ndarray]:
    """So many clips of all lengths, in no order, for what has to be tried out as it will be asked."""
    clips = cut("1-15 s")
    longest_first = sorted(range(CLIPS), key=lambda number: -clips[number].size)
    chosen = {longest_first[place * CLIPS // count + CLIPS // count // 2] for place in range(min(count, CLIPS))}
    return [clips[number] for number in sorted(chosen)] * max(1, count // CLIPS)


def repeated(seconds: float) -> np.ndarray:
    """The recordings over and over, (N,) float32 at 16 kHz."""
    return np.resize(_speech(), int(seconds * SAMPLE_RATE))


def wav(samples: np.ndarray) -> bytes:
    """(N,) float32 at 16 kHz -> a file of 16 bits a sample."""
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


@cache
def _speech() -> np.ndarray:
    pieces = []
    for recording in read_recordings():
        samples, rate = soundfile.read(io.BytesIO(recording.content), dtype="float32")
        if rate != SAMPLE_RATE or samples.ndim != 1:
            raise ValueError(f"examples/{recording.name} is not mono at {SAMPLE_RATE} Hz, as benchmarks take them")
        pieces.append(samples)
    return np.concatenate(pieces)
