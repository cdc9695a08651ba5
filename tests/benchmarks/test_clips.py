from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from benchmarks.clips import LENGTHS_S, cut, read_recordings, repeated, wav


@pytest.mark.parametrize("name", LENGTHS_S)
def test_clips_are_as_long_as_their_set_says_and_no_two_the_same(name):
    clips = cut(name)
    shortest_s, longest_s = LENGTHS_S[name]
    assert len(clips) == 64
    assert min(map(len, clips)) >= shortest_s * 16_000 - 1
    assert max(map(len, clips)) <= longest_s * 16_000
    assert len({clip.tobytes() for clip in clips}) == 64


def test_clips_are_the_recordings_one_after_the_other():
    clips = cut("1-15 s")
    seconds = sum(recording.seconds for recording in read_recordings())
    whole = np.concatenate(clips)
    assert np.array_equal(whole[: 16_000 * int(seconds)], repeated(int(seconds)))
    assert whole.std() > 0.01


def test_a_long_recording_begins_again():
    seconds = sum(recording.seconds for recording in read_recordings())
    long = repeated(2 * seconds + 10)
    assert long.size == int((2 * seconds + 10) * 16_000)
    first = repeated(3)
    places = [at for at in range(int(seconds * 16_000) - 800, int(seconds * 16_000) + 800) if long[at] == first[0]]
    assert any(np.array_equal(long[at : at + first.size], first) for at in places)


def test_a_wav_file_holds_the_clip():
    clip = cut("2 s")[3]
    samples, rate = soundfile.read(io.BytesIO(wav(clip)), dtype="float32")
    assert rate == 16_000
    np.testing.assert_allclose(samples, clip, atol=1e-4)
