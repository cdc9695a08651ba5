"""What a pool of decoders makes of recordings, for tests."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from app.audio.pool import Decoders
from app.audio.recording import Recording
from app.audio.source import AudioSource


def plain(data: bytes) -> np.ndarray:
    with AudioSource(io.BytesIO(data), max_audio_s=3600) as source:
        return np.concatenate(list(source))


def opened(decoders: Decoders, data: bytes, max_audio_s: float = 3600) -> Recording:
    return decoders.open(io.BytesIO(data), max_audio_s=max_audio_s)


def refused(decoders: Decoders, data: bytes, max_audio_s: float = 3600) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what callers look at
        opened(decoders, data, max_audio_s)
    return caught.value


def only(decoders: Decoders) -> int:
    """The number of the only process."""
    (process,) = decoders._processes
    return process.pid


def alive(pid: int) -> bool:
    """And no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
