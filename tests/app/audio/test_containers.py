from __future__ import annotations

import io
import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.errors import AudioError
from app.audio.containers import breaks_off, open_options
from app.audio.source import AudioSource
from tests.app.recordings import KINDS, recording, tone, video, wav

SEEDS = {kind: recording(kind, 0.4) for kind in KINDS}


def test_playlists_and_raw_formats_are_not_tried() -> None:
    tried = set(open_options()["format_whitelist"].split(","))
    assert not tried & {"hls", "dash", "concat", "sdp", "rtsp", "image2", "s16le", "lavfi", "ffmetadata", "tedcaptions"}
    assert "h264" not in open_options()["codec_whitelist"].split(",")


@pytest.mark.parametrize("kind", ["wav-16k", "aiff", "avi", "opus", "webm", "m4a"])
def test_a_container_that_states_its_size_is_known_to_break_off(kind: str) -> None:
    data = recording(kind)
    assert not breaks_off(io.BytesIO(data))
    assert breaks_off(io.BytesIO(data[:-1]))
    assert breaks_off(io.BytesIO(data[: len(data) // 2]))


def test_a_long_wav_takes_no_time() -> None:
    begin = time.process_time()
    chunks = b"RIFF" + struct.pack("<I", 8_000_000) + b"WAVE" + (b"junk" + bytes(4)) * 1_000_000
    breaks_off(io.BytesIO(chunks))
    assert time.process_time() - begin < 5


def test_chunks_before_the_samples_of_a_wav_are_stepped_over() -> None:
    data = wav(tone(0.5))
    at = data.index(b"data")
    padded = data[:at] + b"LIST" + struct.pack("<I", 7) + b"talking" + b"\0" + data[at:]
    assert not breaks_off(io.BytesIO(padded))
    assert breaks_off(io.BytesIO(padded[:-2]))


@settings(max_examples=300)
@given(
    kind=st.sampled_from(sorted(SEEDS)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=20),
    keep=st.floats(0, 1),
)
def test_damaged_files_are_refused_or_decoded_and_never_anything_else(
    kind: str, changes: list[tuple[float, int]], keep: float
) -> None:
    data = bytearray(SEEDS[kind])
    for place, value in changes:
        data[int(place**3 * len(data))] = value  # most of them in the header
    try:
        with AudioSource(io.BytesIO(bytes(data[: int(len(data) * keep) + 1])), max_audio_s=60) as source:
            for block in source:
                assert block.size <= 16_000
    except AudioError:
        pass


@settings(max_examples=200)
@given(
    st.sampled_from(
        [
            b"RIFF....WAVE",
            b"OggS\0",
            b"fLaC",
            b"\0\0\0\x18ftypisom",
            b"\0\0\0\x08wide\0\0\1\0moov",
            b"\x1aE\xdf\xa3",
            b"ID3",
            b"FORM",
        ]
    ),
    st.binary(max_size=400),
)
def test_nonsense_behind_a_known_start(start: bytes, rest: bytes) -> None:
    try:
        with AudioSource(io.BytesIO(start + rest), max_audio_s=60) as source:
            list(source)
    except AudioError:
        pass


def test_pictures_are_never_decoded() -> None:
    """A video whose pictures are nonsense is heard all the same."""
    data = bytearray(video(sound=True, container="avi"))
    at = data.index(b"00dc")
    data[at + 8 : at + 40] = b"\xff" * 32
    with AudioSource(io.BytesIO(bytes(data)), max_audio_s=60) as source:
        assert sum(block.size for block in source) > 30_000
