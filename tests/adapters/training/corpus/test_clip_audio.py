from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from adapters.training.corpus.clip_audio import (
    SAMPLE_RATE,
    UnusableAudio,
    decode,
    flac_seconds,
    remove_broken_off,
    speech_bounds,
    trimmed,
    write_flac,
)
from tests.adapters.training.corpus.small_tree import speech_like, write_g722, write_ogg


def test_g722_is_decoded_as_wideband(tmp_path: Path) -> None:
    samples = speech_like(1.0, 1)
    write_g722(tmp_path / "a.g722", samples)
    decoded = decode(tmp_path / "a.g722")
    assert len(decoded) == pytest.approx(len(samples), abs=64)
    lag = 22  # of the sub-band filters
    assert np.corrcoef(decoded[lag:30_000], samples[: 30_000 - lag])[0, 1] > 0.97


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_any_rate_and_stereo_become_16_khz_mono(tmp_path: Path, rate: int) -> None:
    time = np.arange(rate) / rate
    tone = 0.5 * np.sin(2 * np.pi * 440 * time)
    soundfile.write(tmp_path / "a.wav", np.stack([tone, tone], axis=1), rate)
    decoded = decode(tmp_path / "a.wav")
    assert decoded.dtype == np.float32
    assert len(decoded) == pytest.approx(SAMPLE_RATE, abs=2)
    spectrum = np.abs(np.fft.rfft(decoded))
    assert np.argmax(spectrum) * SAMPLE_RATE / len(decoded) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("silence_s", [0.0, 0.3, 1.0])
def test_silence_is_trimmed_but_for_a_margin(silence_s: float) -> None:
    samples = speech_like(1.5, 2, silence_s=silence_s)
    start, stop = speech_bounds(samples)
    speech_start = round(silence_s * SAMPLE_RATE)
    speech_stop = speech_start + round(1.5 * SAMPLE_RATE)
    assert max(0, speech_start - 0.2 * SAMPLE_RATE) <= start <= speech_start
    assert speech_stop <= stop <= min(len(samples), speech_stop + 0.2 * SAMPLE_RATE)


def test_a_pause_in_the_middle_stays() -> None:
    samples = np.concatenate([speech_like(0.5, 3), speech_like(0.5, 4)])
    start, stop = speech_bounds(samples)
    assert (stop - start) / SAMPLE_RATE == pytest.approx(0.5 + 1.0 + 0.5 + 0.24, abs=0.06)


def test_silence_alone_is_no_clip(tmp_path: Path) -> None:
    write_ogg(tmp_path / "a.ogg", np.zeros(SAMPLE_RATE, np.float32))
    with pytest.raises(UnusableAudio) as caught:
        trimmed(tmp_path / "a.ogg")
    assert caught.value.reason == "silence"


@pytest.mark.parametrize("content", [b"", b"not audio at all", b"OggS\x00"])
def test_what_is_not_audio_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.ogg"
    path.write_bytes(content)
    with pytest.raises(UnusableAudio, match=r"a\.ogg: not decodable") as caught:
        decode(path)
    assert caught.value.reason == "not decodable"


def test_samples_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    samples = speech_like(1.0, 5)
    samples[100] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(UnusableAudio, match=r"a\.wav: not decodable: samples that are no numbers"):
        decode(tmp_path / "a.wav")


def test_a_file_that_goes_on_in_other_channels(tmp_path: Path) -> None:
    for name, channels in (("one", 1), ("two", 2)):
        samples = np.stack([speech_like(1.0, 5)] * channels, axis=1)
        soundfile.write(tmp_path / f"{name}.mp3", samples, SAMPLE_RATE)
    both = tmp_path / "both.mp3"
    both.write_bytes((tmp_path / "one.mp3").read_bytes() + (tmp_path / "two.mp3").read_bytes())
    each = sum(decode(tmp_path / f"{name}.mp3").size for name in ("one", "two"))
    assert decode(both).size == pytest.approx(each, rel=0.1)


def test_flac_is_16_bit_mono_and_whole(tmp_path: Path) -> None:
    samples = speech_like(1.0, 5) * 4  # beyond full scale
    write_flac(tmp_path / "b" / "a.flac", samples)
    read, rate = soundfile.read(tmp_path / "b" / "a.flac")
    assert rate == SAMPLE_RATE
    np.testing.assert_allclose(read, np.clip(samples, -1, 1), atol=1 / 32768)
    assert flac_seconds(tmp_path / "b" / "a.flac") == len(samples) / SAMPLE_RATE
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["a.flac"]


def test_a_broken_flac_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(b"fLaC")
    assert flac_seconds(tmp_path / "a.flac") is None
    assert flac_seconds(tmp_path / "none.flac") is None


@pytest.mark.skipif(sys.platform != "linux", reason="a file's size is bounded as a disk's is")
def test_a_disk_that_is_full_is_told_and_nothing_is_left_on_it(tmp_path: Path) -> None:
    script = """
import resource, signal
from pathlib import Path
import numpy as np
from adapters.errors import DataError
from adapters.training.corpus.clip_audio import write_flac
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, resource.RLIM_INFINITY))
try:
    write_flac(Path("audio/a.flac"), np.random.default_rng(0).normal(0, 0.1, 16_000))
except DataError as error:
    assert str(error) == "audio/a.flac: cannot be written: [Errno 27] File too large", error
else:
    raise AssertionError
"""
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=here, check=True)
    assert list((tmp_path / "audio").iterdir()) == []


def test_what_was_broken_off_is_removed(tmp_path: Path) -> None:
    write_flac(tmp_path / "ka/own/a.flac", speech_like(1.0, 5))
    (tmp_path / "ka/own/.b.flac.123.tmp").write_bytes(b"fLaC")
    remove_broken_off(tmp_path)
    assert [path.name for path in (tmp_path / "ka/own").iterdir()] == ["a.flac"]
    remove_broken_off(tmp_path / "nowhere")
