"""Windows of long audio: nothing lost, nothing twice, cut where nobody speaks, and never much in memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.frontend import SAMPLE_RATE, Geometry
from adapters.speech import SILENCE_DBFS
from adapters.windows import Window, WindowShape, cut, level_dbfs

GEOMETRY = Geometry((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
SHORT = WindowShape(longest_s=2.0, search_s=0.8, context_s=0.2)
NOISE = np.random.default_rng(0).standard_normal(12 * SAMPLE_RATE).astype(np.float32)


def blocks_of(samples: np.ndarray, sizes: list[int]) -> Iterator[np.ndarray]:
    """``samples`` in blocks of the given sizes, over and over."""
    begin = 0
    for size in itertools.cycle(sizes):
        if begin >= samples.size:
            return
        yield samples[begin : begin + size]
        begin += size


def begins(windows: list[Window]) -> list[int]:
    """The sample at which each window begins, context included."""
    hop, cores = GEOMETRY.hop, list(itertools.accumulate((w.keep for w in windows), initial=0))
    return [(core - window.skip) * hop for core, window in zip(cores[:-1], windows, strict=True)]


sizes = st.lists(st.integers(1, 40_000), min_size=1, max_size=5).filter(lambda s: sum(s) > 300 * len(s))


@given(length=st.integers(0, NOISE.size), sizes=sizes)
def test_cores_tile_the_frames_and_windows_hold_the_recordings_samples(length, sizes):
    samples = NOISE[:length]
    windows = list(cut(blocks_of(samples, sizes), GEOMETRY, SHORT))
    assert [window.index for window in windows] == list(range(len(windows)))
    assert sum(window.keep for window in windows) == GEOMETRY.frames(length)
    for begin, window in zip(begins(windows), windows, strict=True):
        np.testing.assert_array_equal(window.samples, samples[begin : begin + window.samples.size])
        assert GEOMETRY.frames(window.samples.size) >= window.skip + window.keep
        assert window.keep > 0
    for before, after in itertools.pairwise(windows):
        assert after.skip == 10, "a fifth of a second of context"
        assert GEOMETRY.frames(before.samples.size) - before.skip - before.keep >= 9


@given(length=st.integers(0, NOISE.size), sizes=sizes)
def test_how_the_audio_comes_does_not_matter(length, sizes):
    whole = list(cut([NOISE[:length]], GEOMETRY, SHORT))
    pieces = list(cut(blocks_of(NOISE[:length], sizes), GEOMETRY, SHORT))
    assert [(w.skip, w.keep, w.samples.size) for w in pieces] == [(w.skip, w.keep, w.samples.size) for w in whole]


def test_short_audio_is_one_window_as_it_is():
    (window,) = cut([NOISE[:20_000]], GEOMETRY, SHORT)
    assert (window.skip, window.keep) == (0, GEOMETRY.frames(20_000))
    np.testing.assert_array_equal(window.samples, NOISE[:20_000])


@pytest.mark.parametrize("samples", [0, 1, 399])
def test_what_is_too_short_for_a_frame_is_no_window(samples):
    assert list(cut([NOISE[:samples]], GEOMETRY, SHORT)) == []
    assert list(cut([], GEOMETRY, SHORT)) == []
    assert [w.keep for w in cut([NOISE[:400]], GEOMETRY, SHORT)] == [1]


@pytest.mark.parametrize("tail", [0, 1, 319, 320, 399, 400])
def test_a_tail_of_any_length_costs_no_frame_of_the_window_before(tail):
    length = int(SHORT.longest_s * SAMPLE_RATE) + 3200 + tail
    assert sum(w.keep for w in cut([NOISE[:length]], GEOMETRY, SHORT)) == GEOMETRY.frames(length)


def test_all_windows_of_a_long_recording_are_told_so():
    """Those between two pauses as well, which no context surrounds."""
    word, pause = 0.1 * NOISE[:24_000], np.zeros(16_000, np.float32)
    short, long = np.concatenate([word, pause, word]), np.concatenate([word, pause] * 20)
    assert [window.long for window in cut([short], GEOMETRY)] == [False] * 3
    found = list(cut([long], GEOMETRY))
    assert len(found) > 30
    assert all(window.long for window in found)


def test_cuts_fall_into_pauses():
    """Bursts of speech-loud noise with a fifth of a second of near silence every 1.37 seconds."""
    time_s = np.arange(NOISE.size) / SAMPLE_RATE
    paused = time_s % 1.37 > 1.17
    samples = NOISE * np.where(paused, 0.001, 0.2).astype(np.float32)
    windows = list(cut([samples], GEOMETRY, WindowShape(longest_s=4.0, search_s=1.6, context_s=0.2)))
    edges = list(itertools.accumulate(window.keep for window in windows))[:-1]
    assert len(edges) >= 2
    for edge in edges:
        middle = edge * GEOMETRY.hop
        assert paused[middle - 480 : middle + 480].all(), f"cut at {middle / SAMPLE_RATE:.2f} s"


def test_an_hour_never_lies_in_memory_whole():
    """Windows come while the audio does: whatever was read and not yet given out fits in two windows."""
    second = NOISE[:SAMPLE_RATE]
    shape = WindowShape()
    most = int((shape.longest_s + 2 * shape.context_s) * SAMPLE_RATE)
    read = out = 0

    def hour() -> Iterator[np.ndarray]:
        nonlocal read
        for _ in range(3600):
            read += second.size
            yield second

    for window in cut(hour(), GEOMETRY, shape):
        out += window.keep * GEOMETRY.hop
        assert window.samples.size <= most
        assert window.samples.base is None or window.samples.base.size <= most + SAMPLE_RATE
        assert read - out <= most
    assert out // GEOMETRY.hop == GEOMETRY.frames(3600 * SAMPLE_RATE)


def test_level_is_that_of_the_loudest_moment_without_the_offset():
    tone = np.sin(np.arange(SAMPLE_RATE) * 2 * np.pi * 400 / SAMPLE_RATE).astype(np.float32)
    assert level_dbfs(tone) == pytest.approx(-3.01, abs=0.05)
    assert level_dbfs(tone * 0.01 + 0.5) == pytest.approx(-43.01, abs=0.05)
    burst = np.zeros(SAMPLE_RATE, np.float32)
    burst[8000:9000] = tone[:1000]
    assert level_dbfs(burst) == pytest.approx(-3.0, abs=0.1), "a short word in a long silence is loud"
    assert level_dbfs(np.zeros(SAMPLE_RATE, np.float32)) < -150
    assert level_dbfs(np.full(50, 0.25, np.float32)) < -150


@pytest.mark.parametrize(("gain", "silent"), [(0.0, True), (1e-3, True), (1e-2, False), (1.0, False)])
def test_silence(gain, silent):
    (window,) = cut([NOISE[:SAMPLE_RATE] * np.float32(gain)], GEOMETRY)
    assert window.silent is silent
    assert (level_dbfs(window.samples) < SILENCE_DBFS) is silent


@pytest.mark.parametrize(
    "options",
    [{"search_s": 9.0}, {"search_s": 0.0}, {"search_s": 0.05}, {"longest_s": 2.0}, {"context_s": 0.01}],
)
def test_shapes_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match="windows of"):
        WindowShape(**options)
