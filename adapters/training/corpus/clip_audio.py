"""A recording -> trimmed 16 kHz mono samples -> FLAC."""

from __future__ import annotations

import io
import os
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from adapters.errors import DataError

SAMPLE_RATE = 16_000
Samples = npt.NDArray[np.float32]


class UnusableAudio(DataError):
    """A recording that cannot be decoded or holds no sound. `reason` is one of a few, for counting."""

    def __init__(self, reason: str, path: Path, detail: str = "") -> None:
        super().__init__(f"{path}: {reason}{': ' if detail else ''}{detail}")
        self.reason = reason


def decode(path: Path) -> Samples:
    """The samples of a sound file, mixed to mono, at 16 kHz. Raw G.722 goes by its name (``.g722``).

    Raises:
        UnusableAudio: nothing that FFmpeg's libraries decode, or no samples.
    """
    try:
        with av.open(str(path), format="g722" if path.suffix == ".g722" else None) as container:
            stream = container.streams.audio[0]
            to_float = av.AudioResampler(format="fltp")
            blocks: list[Samples] = []
            for frame in container.decode(stream):  # which need not have as many channels as those before
                parts = (part.to_ndarray() for part in to_float.resample(frame))
                blocks += [part.astype(np.float32).mean(axis=0, dtype=np.float32) for part in parts]
            rate = stream.rate
    except (av.FFmpegError, IndexError, OSError) as error:
        raise UnusableAudio("not decodable", path, str(error)) from error
    if not blocks:
        raise UnusableAudio("no samples", path)
    samples: Samples = np.concatenate(blocks)
    if not np.isfinite(samples).all():
        raise UnusableAudio("not decodable", path, "samples that are no numbers")
    if rate != SAMPLE_RATE:
        samples = soxr.resample(samples, rate, SAMPLE_RATE)
    return samples


def speech_bounds(samples: Samples, *, margin_s: float = 0.12) -> tuple[int, int]:
    """First and one-past-last sample of what is louder than the background, with a margin; (0, 0) if nothing is.

    Energy in windows of 20 ms, every 10 ms. Loud means within 40 dB of the loudest window and 8 dB above the
    quietest tenth, but never asks for more than 20 dB below the loudest (some clips have no background at all).
    """
    window, hop = SAMPLE_RATE // 50, SAMPLE_RATE // 100
    if len(samples) < window:
        return 0, len(samples) if np.abs(samples).max(initial=0.0) > 1e-3 else 0
    energy = np.convolve(np.square(samples, dtype=np.float64), np.full(window, 1 / window), mode="valid")[::hop]
    level = 10 * np.log10(np.maximum(energy, 1e-12))  # dB of full scale
    peak = float(level.max())
    if peak < -60:
        return 0, 0
    background = float(np.percentile(level, 10))
    threshold = max(peak - 40, min(background + 8, peak - 20))
    loud = np.flatnonzero(level >= threshold)
    margin = round(margin_s * SAMPLE_RATE)
    start, stop = int(loud[0]) * hop - margin, int(loud[-1]) * hop + window + margin
    return max(0, start), min(len(samples), stop)


def trimmed(path: Path) -> Samples:
    """`decode`, without the silence at both ends. Raises UnusableAudio."""
    samples = decode(path)
    start, stop = speech_bounds(samples)
    if start == stop:
        raise UnusableAudio("silence", path)
    return samples[start:stop]


def write_flac(path: Path, samples: Samples) -> None:
    """16-bit FLAC, put in place whole or not at all. Raises :class:`~adapters.errors.DataError` where it cannot be: on
    a full disk, say."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    encoded = io.BytesIO()  # libsndfile does not tell what the system says
    soundfile.write(encoded, np.clip(samples, -1.0, 1.0), SAMPLE_RATE, subtype="PCM_16", format="FLAC")
    try:
        temporary.write_bytes(encoded.getbuffer())
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_broken_off(folder: Path) -> None:
    """What :func:`write_flac` was doing in ``folder`` when it was killed."""
    for temporary in folder.rglob(".*.tmp"):
        temporary.unlink(missing_ok=True)


def flac_seconds(path: Path) -> float | None:
    """Length of a FLAC already there, None if there is none that can be read."""
    try:
        info = soundfile.info(path)
    except (soundfile.LibsndfileError, OSError):
        return None
    return float(info.frames / info.samplerate) if info.samplerate == SAMPLE_RATE and info.frames > 0 else None
