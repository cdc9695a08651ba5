from __future__ import annotations

import io
import itertools
import re
import threading
import tracemalloc

import av
import numpy as np
import pytest
import soundfile

from adapters.errors import AudioTooLong, AudioTooShort, BrokenAudio, EmptyAudio, NoAudioTrack, NotAudio
from app.audio.source import AudioSource
from tests.app.recordings import KINDS, encoded, long_silence, recording, tone, video, wav, with_sizes


def decoded(data: bytes, max_audio_s: float = 3600) -> tuple[np.ndarray, AudioSource]:
    with AudioSource(io.BytesIO(data), max_audio_s=max_audio_s) as source:
        blocks = list(source)
    assert all(block.dtype == np.float32 and 0 < block.size <= 16_000 for block in blocks)
    return np.concatenate(blocks), source


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    size = min(one.size, other.size)
    return float(np.corrcoef(one[:size], other[:size])[0, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_becomes_16_khz_mono(kind: str) -> None:
    samples, source = decoded(recording(kind, 2.0))
    assert samples.size == pytest.approx(32_000, abs=1_600)
    assert not source.truncated
    assert source.duration_s == pytest.approx(samples.size / 16_000, abs=0.01)
    assert 0.05 < np.abs(samples).mean() < 0.3
    if kind.startswith(("wav", "aiff", "au", "flac")):  # the others shift by the delay of their encoders
        expected = tone(2.0, KINDS[kind][2])
        rate = KINDS[kind][2]
        assert (
            likeness(samples, np.interp(np.arange(32_000) / 16_000, np.arange(expected.size) / rate, expected)) > 0.95
        )


def test_16_khz_mono_pcm_is_not_touched() -> None:
    expected = tone(1.5)
    samples, _ = decoded(wav(expected, subtype="FLOAT"))
    assert np.array_equal(samples, expected)


@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("flac", "flac"), ("ogg", "libopus")])
@pytest.mark.parametrize("layout", ["5.1", "7.1"])
def test_many_channels(container: str, codec: str, layout: str) -> None:
    """PyAV reads past the end of eight planes and more, and the process dies of it."""
    samples, _ = decoded(encoded(tone(1.0, 48_000), container, codec, 48_000, layout))
    assert samples.size == pytest.approx(16_000, abs=800)
    assert np.abs(samples).mean() > 0.05


def test_channels_are_averaged() -> None:
    hum = tone(1.0)
    samples, _ = decoded(wav(np.stack([hum, np.zeros_like(hum), hum], axis=1), subtype="FLOAT"))
    assert np.allclose(samples, hum * 2 / 3, atol=1e-6)


@pytest.mark.parametrize(("subtype", "step"), [("PCM_U8", 1 / 128), ("PCM_16", 1 / 32768), ("PCM_24", 1 / 2**23)])
def test_integers_become_the_same_floats(subtype: str, step: float) -> None:
    hum = tone(0.5)
    samples, _ = decoded(wav(hum, subtype=subtype))
    assert np.abs(samples - hum).max() <= 1.01 * step


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"mpegts", "m4a"}))
@pytest.mark.parametrize("share", [0.6, 0.35])
def test_what_breaks_off_gives_what_there_is_and_says_so(kind: str, share: float) -> None:
    data = recording(kind, 4.0)
    samples, source = decoded(data[: int(len(data) * share)])
    assert source.truncated
    assert 0.5 < samples.size / 16_000 < 4.0 * share + 0.2


def test_a_wav_that_ends_on_a_packet_of_ffmpeg_breaks_off_too() -> None:
    data = recording("wav-16k", 4.0)
    _, source = decoded(data[: data.index(b"data") + 8 + 4096 * 10])
    assert source.truncated


@pytest.mark.parametrize(("whole", "size"), [(0, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFF024, 0x7FFFF000)])
def test_a_wav_that_was_piped_states_no_length_and_is_whole(whole: int, size: int) -> None:
    samples, source = decoded(with_sizes(wav(tone(1.7)), whole, size))
    assert samples.size == 27_200
    assert not source.truncated


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("matroska", "mp3"),
        ("matroska", "pcm_s16le"),
        ("webm", "libopus"),
        ("asf", "wmav2"),
        ("avi", "pcm_s16le"),
        ("avi", "mp3"),
        ("wav", "adpcm_ima_wav"),
        ("caf", "pcm_s16be"),
        ("flv", "mp3"),
    ],
)
@pytest.mark.parametrize("piped", [True, False])
def test_what_is_written_to_a_pipe_is_whole(container: str, codec: str, piped: bool) -> None:
    """Its header states no length, and what FFmpeg makes of its size is a guess."""
    rate = 48_000 if container == "webm" else 44_100
    data = encoded(tone(60.0, rate), container, codec, rate, piped=piped, bit_rate=64_000)
    samples, source = decoded(data, max_audio_s=61.0)
    assert samples.size == pytest.approx(60 * 16_000, rel=0.01)
    assert not source.truncated
    if not piped and codec != "adpcm_ima_wav":
        assert decoded(data[: len(data) // 2], max_audio_s=61.0)[1].truncated


@pytest.mark.parametrize("kind", ["wav-16k", "flac", "mp3", "m4a", "opus", "webm"])
def test_a_tag_at_the_end_is_no_truncation(kind: str) -> None:
    _, source = decoded(recording(kind) + b"TAG" + bytes(125))
    assert not source.truncated


def test_damage_in_the_middle_is_told_and_the_rest_is_heard() -> None:
    data = bytearray(recording("flac", 4.0))
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    samples, source = decoded(bytes(data))
    assert source.truncated
    assert samples.size > 3.0 * 16_000


def test_one_lost_frame_of_a_flac_is_told_and_silent() -> None:
    """Of 4,096 samples, as its encoder makes them: less than other containers' time stamps are off."""
    data = io.BytesIO()
    soundfile.write(data, tone(4.0, 48_000), 48_000, format="FLAC")
    with av.open(io.BytesIO(data.getvalue()), "r") as container:
        frame = [packet.pos or 0 for packet in container.demux() if packet.size][20]
    damaged = bytearray(data.getvalue())
    damaged[frame : frame + 300] = b"\x55" * 300
    samples, source = decoded(bytes(damaged))
    assert source.truncated
    assert samples.size == 4 * 16_000, "what comes after it stays where it was"


@pytest.mark.parametrize("place", ["first", "last"])
def test_a_damaged_page_of_an_ogg_is_told(place: str) -> None:
    data = recording("opus", 8.0)
    pages = [found.start() for found in re.finditer(b"OggS\0", data)]
    assert len(pages) > 4
    begin, end = {"first": (pages[2], pages[3]), "last": (pages[-1], len(data))}[place]
    damaged = bytearray(data)
    damaged[(begin + end) // 2] ^= 1
    samples, source = decoded(bytes(damaged))
    assert source.truncated
    assert 5.5 * 16_000 < samples.size < decoded(data)[0].size
    assert not decoded(data)[1].truncated


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", EmptyAudio),
        (b"This is a text, not a sound.\n" * 100, NotAudio),
        (b"1\n00:00:01,000 --> 00:00:02,000\nsubtitles\n\n" * 50, NotAudio),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n", NotAudio),
        (b"ffconcat version 1.0\nfile /etc/hostname\n", NotAudio),
        (b'<?xml version="1.0"?><MPD><BaseURL>http://127.0.0.1:1/</BaseURL></MPD>', NotAudio),
        (bytes(10_000), NotAudio),
        (np.random.default_rng(0).bytes(100_000), NotAudio),
        (wav(np.zeros(0, np.float32)), BrokenAudio),
        (wav(tone(1.0))[:44], BrokenAudio),
        (wav(tone(1.0))[:20], BrokenAudio),
        (b"RIFF\x00\x00\x00\x00WAVE", BrokenAudio),
        (b"OggS" + bytes(100), BrokenAudio),
        (recording("opus")[:60], BrokenAudio),
        (recording("m4a")[:4000], BrokenAudio),
        (wav(np.full(16_000, np.nan, np.float32), subtype="FLOAT"), BrokenAudio),
        (wav(np.full(16_000, np.inf, np.float32), subtype="FLOAT"), BrokenAudio),
        (wav(np.full(16_000, 1e300), subtype="DOUBLE"), BrokenAudio),
        (wav(np.full(16_000, 1e30, np.float32), subtype="FLOAT"), BrokenAudio),
        (wav(tone(0.1), rate=3), BrokenAudio),
        (wav(tone(1.0)[:399]), AudioTooShort),
        (wav(tone(1.0, 48_000)[:1_000], rate=48_000), AudioTooShort),
    ],
    ids=itertools.count(),  # the bytes hold random serial numbers, and every process must call a test the same
)
def test_what_cannot_be_transcribed_is_refused_on_opening(data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        AudioSource(io.BytesIO(data), max_audio_s=3600)


def test_a_tiny_clip_is_enough() -> None:
    assert decoded(wav(tone(1.0)[:400]))[0].size == 400


def test_nan_in_the_middle_is_found_when_its_block_is_decoded() -> None:
    samples = tone(5.0)
    samples[60_000] = np.nan
    source = AudioSource(io.BytesIO(wav(samples, subtype="FLOAT")), max_audio_s=3600)
    with source, pytest.raises(BrokenAudio, match="no numbers"):
        list(source)


@pytest.mark.parametrize("container", ["mp4", "matroska", "avi"])
def test_video(container: str) -> None:
    samples, source = decoded(video(sound=True, container=container))
    assert samples.size == pytest.approx(32_768, abs=2_048)
    assert not source.truncated
    with pytest.raises(NoAudioTrack):
        AudioSource(io.BytesIO(video(sound=False, container=container)), max_audio_s=3600)


def test_silence_that_was_not_sent_is_put_in() -> None:
    """Recorders leave packets of silence out; without them, words after it would be dated too early."""
    data = encoded(
        np.concatenate([tone(1.0, 48_000), np.zeros(96_000, np.float32), tone(1.0, 48_000)]), "webm", "libopus", 48_000
    )
    whole, _ = decoded(data)
    thinned, source = decoded(_without(data, 1.2, 2.8))
    assert thinned.size == pytest.approx(whole.size, abs=1_600)
    assert np.abs(thinned[3 * 16_000 + 3_200 :]).mean() > 0.05
    assert not np.abs(thinned[24_000:40_000]).any()
    assert not source.truncated


def _without(data: bytes, begin_s: float, end_s: float) -> bytes:
    import av

    buffer = io.BytesIO()
    with av.open(io.BytesIO(data), "r") as source, av.open(buffer, "w", format="webm") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.pts is not None and not begin_s <= packet.pts * packet.time_base < end_s:
                packet.stream = stream
                target.mux(packet)
    return buffer.getvalue()


def test_a_stated_length_is_refused_before_decoding() -> None:
    with pytest.raises(AudioTooLong, match="60 s"):
        AudioSource(io.BytesIO(recording("flac", 65.0)), max_audio_s=60)


def test_an_hour_from_a_few_kilobytes_is_refused_while_decoding_in_bounded_memory() -> None:
    data = long_silence(2.0, length_stated=False)
    assert len(data) < 1_000_000
    tracemalloc.start()
    try:
        source = AudioSource(io.BytesIO(data), max_audio_s=3600)
        with source, pytest.raises(AudioTooLong, match="3600 s"):
            assert all(block.size <= 16_000 for block in source)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000


def test_the_limit_is_a_limit() -> None:
    assert decoded(wav(tone(10.0)), max_audio_s=10)[0].size == 160_000
    with pytest.raises(AudioTooLong):
        decoded(with_sizes(wav(tone(10.1)), 0, 0), max_audio_s=10)


def test_closing_in_another_thread_ends_it() -> None:
    source = AudioSource(io.BytesIO(recording("opus", 30.0)), max_audio_s=3600)
    taken: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: taken.extend(source))
    thread.start()
    source.close()
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert list(source) == []
    source.close()


def test_names_of_files_do_not_count() -> None:
    class Named(io.BytesIO):
        name = "talk.mp3"

    with AudioSource(Named(recording("wav-16k")), max_audio_s=60) as source:
        assert sum(block.size for block in source) == 32_000
