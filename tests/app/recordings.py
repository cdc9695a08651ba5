"""Recordings in many forms, made by real encoders."""

from __future__ import annotations

import io
import struct
from typing import Any

import av
import numpy as np
import soundfile

# name -> container, codec, sample rate, channels
KINDS: dict[str, tuple[str, str, int, str]] = {
    "wav-8k": ("wav", "pcm_s16le", 8_000, "mono"),
    "wav-16k": ("wav", "pcm_s16le", 16_000, "mono"),
    "wav-24bit-48k-stereo": ("wav", "pcm_s24le", 48_000, "stereo"),
    "wav-32bit": ("wav", "pcm_s32le", 16_000, "mono"),
    "wav-u8": ("wav", "pcm_u8", 16_000, "mono"),
    "wav-float": ("wav", "pcm_f32le", 16_000, "mono"),
    "wav-double": ("wav", "pcm_f64le", 44_100, "mono"),
    "wav-mulaw-8k": ("wav", "pcm_mulaw", 8_000, "mono"),
    "aiff": ("aiff", "pcm_s16be", 16_000, "mono"),
    "au": ("au", "pcm_s16be", 16_000, "mono"),
    "caf": ("caf", "pcm_s16be", 16_000, "mono"),
    "w64": ("w64", "pcm_s16le", 16_000, "mono"),
    "flac": ("flac", "flac", 16_000, "mono"),
    "opus": ("ogg", "libopus", 48_000, "mono"),
    "mp3": ("mp3", "libmp3lame", 44_100, "stereo"),
    "m4a": ("mp4", "aac", 48_000, "stereo"),
    "webm": ("webm", "libopus", 48_000, "mono"),
    "aac": ("adts", "aac", 44_100, "mono"),
    "mpegts": ("mpegts", "aac", 44_100, "mono"),
    "tta": ("tta", "tta", 44_100, "mono"),
    "avi": ("avi", "mp3", 44_100, "mono"),
}


def tone(seconds: float, rate: int = 16_000, loudness: float = 0.3) -> np.ndarray:
    """(N,) float32: a swelling hum over some noise."""
    t = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal(t.size)
    return (loudness * (0.8 * np.sin(2 * np.pi * 220 * t) * np.sin(np.pi * t) + 0.1 * noise)).astype(np.float32)


class _Pipe:
    """What can only be written to."""

    def __init__(self, buffer: io.BytesIO) -> None:
        self.write = buffer.write


def encoded(
    samples: np.ndarray,
    container: str,
    codec: str,
    rate: int,
    layout: str = "mono",
    *,
    piped: bool = False,
    bit_rate: int | None = None,
    **options: Any,
) -> bytes:
    """``samples`` (N,), the same in every channel. ``piped``: nothing is gone back to. ``options`` are the muxer's."""
    buffer = io.BytesIO()
    with av.open(_Pipe(buffer) if piped else buffer, "w", format=container, container_options=options) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, av.AudioStream)
        if bit_rate is not None:
            stream.bit_rate = bit_rate
        context = stream.codec_context
        packed = np.repeat(samples.astype(np.float32), len(context.layout.channels))[None]
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
        frame.sample_rate = rate
        fifo = av.AudioFifo()
        for part in av.AudioResampler(format=context.format, layout=layout, rate=rate).resample(frame):
            part.pts = None
            fifo.write(part)
        size = context.frame_size or 1024
        while (piece := fifo.read(size) or fifo.read(size, partial=True)) is not None:
            piece.pts = None
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def recording(kind: str, seconds: float = 2.0) -> bytes:
    """A hum in one of ``KINDS``."""
    container, codec, rate, layout = KINDS[kind]
    return encoded(tone(seconds, rate), container, codec, rate, layout)


def wav(samples: np.ndarray, rate: int = 16_000, subtype: str = "PCM_16") -> bytes:
    """(N,) or (N, channels) as a WAV."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype=subtype)
    return buffer.getvalue()


def with_sizes(data: bytes, whole: int, samples: int) -> bytes:
    """A WAV whose header states other sizes, as writers to a pipe leave behind."""
    changed, at = bytearray(data), data.index(b"data")
    changed[4:8], changed[at + 4 : at + 8] = struct.pack("<I", whole), struct.pack("<I", samples)
    return bytes(changed)


def video(*, sound: bool, container: str = "mp4") -> bytes:
    """Two seconds of grey pictures, with or without a hum."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        pictures = output.add_stream("mpeg4", rate=25)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        speech = output.add_stream("aac", rate=16_000, layout="mono") if sound else None
        for shade in range(50):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), shade, np.uint8), format="rgb24")
            output.mux(pictures.encode(picture))
        output.mux(pictures.encode(None))
        if speech is not None:
            hum = tone(2.048)
            for start in range(0, hum.size, 1024):
                frame = av.AudioFrame.from_ndarray(hum[None, start : start + 1024], format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 16_000, start
                output.mux(speech.encode(frame))
            output.mux(speech.encode(None))
    return buffer.getvalue()


def long_silence(hours: float, *, length_stated: bool) -> bytes:
    """A small FLAC at 8 kHz that decodes to hours; its header may leave open how many."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", 8_000, 1, "PCM_16", format="FLAC") as file:
        for _ in range(round(hours * 60)):
            file.write(np.zeros(60 * 8_000, np.int16))
    data = bytearray(buffer.getvalue())
    if not length_stated:
        data[21] &= 0xF0  # STREAMINFO: 36 bits of sample count
        data[22:26] = bytes(4)
    return bytes(data)
