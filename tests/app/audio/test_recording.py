"""Recordings that are decoded in a process beside: the same as here."""

from __future__ import annotations

import io
import tempfile
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from adapters.errors import (
    AudioTooLong,
    AudioTooShort,
    BrokenAudio,
    Draining,
    EmptyAudio,
    NoAudioTrack,
    NotAudio,
)
from app.audio import process
from app.audio.pool import Decoders
from app.audio.process import AT_ONCE_SAMPLES
from app.audio.source import AudioSource
from app.audio.wire import Message
from tests.app.decoded import opened, plain, refused
from tests.app.recordings import recording, tone, video, wav, with_sizes


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    made = Decoders(1)
    yield made
    made.close()


@pytest.mark.parametrize("kind", ["opus", "wav-mulaw-8k", "flac", "mp3", "m4a"])
@pytest.mark.parametrize("seconds", [2.0, 30.3])
def test_what_comes_is_what_is_decoded_here(decoders: Decoders, kind: str, seconds: float) -> None:
    data = recording(kind, seconds)
    with opened(decoders, data) as heard:
        blocks = list(heard)
    assert all(block.size == 16_000 for block in blocks[:-1])
    assert np.array_equal(np.concatenate(blocks), plain(data))
    assert heard.duration_s == pytest.approx(seconds, abs=0.1)
    assert not heard.truncated


def test_a_large_file_goes_by_its_descriptor(decoders: Decoders) -> None:
    data = wav(tone(60.0))
    assert len(data) > 1 << 20
    for spooled in (tempfile.SpooledTemporaryFile(1 << 20), tempfile.SpooledTemporaryFile()):  # noqa: SIM115
        with spooled as file:
            file.write(data)
            with decoders.open(file, max_audio_s=3600) as heard:  # type: ignore[arg-type]
                assert np.array_equal(np.concatenate(list(heard)), plain(data))


def test_refusals_are_those_of_the_source(decoders: Decoders) -> None:
    for data, kind in [
        (b"", EmptyAudio),
        (b"no audio at all", NotAudio),
        (b"RIFF" + bytes(100), BrokenAudio),
        (video(sound=False), NoAudioTrack),
        (wav(tone(0.01)), AudioTooShort),
        (recording("flac", 65.0), AudioTooLong),
    ]:
        error = refused(decoders, data, max_audio_s=60)
        with pytest.raises(kind) as here:
            AudioSource(io.BytesIO(data), max_audio_s=60)
        assert (type(error), str(error)) == (kind, str(here.value))


def test_what_is_found_later_is_told_behind_what_was_good(decoders: Decoders) -> None:
    samples = tone(20.0)
    samples[15 * 16_000] = np.nan
    with opened(decoders, wav(samples, subtype="FLOAT")) as heard:
        taken = [next(heard) for _ in range(9)]  # eight of a second, and the last
        assert np.array_equal(np.concatenate(taken), samples[: 14 * 16_000])
        for _ in range(2):
            with pytest.raises(BrokenAudio, match="no numbers"):
                next(heard)
    with opened(decoders, with_sizes(wav(tone(10.1)), 0, 0), max_audio_s=10) as heard, pytest.raises(AudioTooLong):
        list(heard)


def test_what_breaks_off_is_told_at_its_end(decoders: Decoders) -> None:
    data = recording("opus", 20.0)
    with opened(decoders, data[: len(data) // 2]) as heard:
        assert sum(block.size for block in heard) < 12 * 16_000
        assert heard.truncated


def test_one_that_is_whole_waits_for_nothing() -> None:
    decoders = Decoders(1)
    with opened(decoders, recording("opus", 2.0)) as short, opened(decoders, recording("flac", 20.0)) as long:
        assert short.whole
        assert not long.whole
        decoders.close()  # whoever asked now would be told so
        assert sum(block.size for block in short) == pytest.approx(32_000, abs=1_600)
        with pytest.raises(Draining):
            list(long)


def test_a_long_recording_that_nobody_asks_for_holds_up_no_other(decoders: Decoders) -> None:
    with opened(decoders, recording("flac", 60.0)) as long:
        assert long.duration_s < 2 * AT_ONCE_SAMPLES / 16_000  # not decoded to its end
        for _ in range(3):
            with opened(decoders, recording("opus", 2.0)) as short:
                assert sum(block.size for block in short) == pytest.approx(32_000, abs=1_600)
        assert sum(block.size for block in long) == 60 * 16_000


def test_many_at_once_each_get_their_own(decoders: Decoders) -> None:
    clips = [wav(tone(9.0 + number / 10, loudness=0.1 + number / 50), subtype="FLOAT") for number in range(12)]
    heard: dict[int, np.ndarray] = {}

    def hear(number: int) -> None:
        with opened(decoders, clips[number]) as source:
            heard[number] = np.concatenate(list(source))

    threads = [threading.Thread(target=hear, args=(number,)) for number in range(len(clips))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert all(np.array_equal(heard[number], plain(clips[number])) for number in range(len(clips)))


def test_a_closed_one_gives_nothing_and_leaves_nothing(decoders: Decoders) -> None:
    heard = opened(decoders, recording("flac", 60.0))
    (process,) = decoders._processes
    assert process.recordings == 1
    heard.close()
    heard.close()
    assert list(heard) == []
    assert process.recordings == 0


def test_what_was_heard_before_is_passed_over_a_little_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other recordings are answered between."""
    monkeypatch.setattr(process, "AT_ONCE_S", 0.0)
    data, decoder = recording("flac", 20.0), process.Decoder()
    answers = [
        decoder.answer(Message({"number": 1, "do": "open", "skip": 15 * 16_000, "max_audio_s": 60}, memoryview(data)))
    ]
    while not answers[-1][0].ended:
        answers.append(decoder.answer(Message({"number": 1, "do": "next"}, memoryview(b""))))
    assert [len(content) for _, content in answers] == 15 * [0] + 5 * [4 * 16_000] + [0]
    assert b"".join(content for _, content in answers) == plain(data)[15 * 16_000 :].tobytes()
