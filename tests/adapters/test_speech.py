"""Long silence beside speech is no part of its windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from adapters.ctc import BestPath, words
from adapters.frontend import SAMPLE_RATE, Geometry
from adapters.speech import SILENCE_DBFS, Stretch, stretches
from adapters.vocab import Vocab
from adapters.windows import Window, WindowShape, cut, level_dbfs

GEOMETRY = Geometry((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
SPEECH = {}
for path in sorted((Path(__file__).parents[2] / "examples").glob("*.ogg")):
    samples, rate = soundfile.read(path, dtype="float32")
    SPEECH[path.stem] = soxr.resample(samples, rate, SAMPLE_RATE)


def quiet(seconds: float, level: float = 0.0) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(int(seconds * SAMPLE_RATE)) * level
    return noise.astype(np.float32)


@pytest.mark.parametrize("language", SPEECH)
def test_speech_as_it_was_trained_on_is_one_window(language: str) -> None:
    """But for what fades away at its end."""
    windows = list(cut([SPEECH[language]], GEOMETRY))
    (heard,) = (window for window in windows if not window.silent)
    assert heard.samples.size > SPEECH[language].size - 0.3 * SAMPLE_RATE
    if len(windows) == 1:
        assert np.array_equal(heard.samples, SPEECH[language])
        assert (heard.skip, heard.keep) == (0, GEOMETRY.frames(heard.samples.size))


@pytest.mark.parametrize("level", [0.0, 1e-4, 1e-3])
@pytest.mark.parametrize(("before", "behind"), [(10.0, 0.0), (0.0, 10.0), (1.0, 2.0), (0.5, 0.5)])
@pytest.mark.parametrize("language", ["es", "ru"])
def test_what_is_heard_is_the_speech_alone(language: str, before: float, behind: float, level: float) -> None:
    speech = SPEECH[language]
    samples = np.concatenate([quiet(before, level), speech, quiet(behind, level)])
    windows = list(cut([samples], GEOMETRY))
    assert sum(window.keep for window in windows) == GEOMETRY.frames(samples.size)
    assert [window.index for window in windows] == list(range(len(windows)))
    (heard,) = (window for window in windows if not window.silent)
    at = sum(window.keep for window in windows[: heard.index]) * GEOMETRY.hop - heard.skip * GEOMETRY.hop
    assert np.array_equal(heard.samples, samples[at : at + heard.samples.size])
    assert abs(at - before * SAMPLE_RATE) < 0.3 * SAMPLE_RATE
    assert abs(at + heard.samples.size - before * SAMPLE_RATE - speech.size) < 0.3 * SAMPLE_RATE


@pytest.mark.parametrize("constant", [0.001, 0.0029, 0.0031, 0.1, -0.4])
@pytest.mark.parametrize("level", [1e-6, 1e-5, 1e-4])
@pytest.mark.parametrize("loudness", [0.02, 1.0])
def test_a_constant_part_changes_nothing(loudness: float, level: float, constant: float) -> None:
    speech = loudness * SPEECH["ru"]
    samples = np.concatenate([quiet(1.0, level), speech, quiet(2.0, level), speech, quiet(1.0, level)])
    found = stretches(samples - samples.mean(), GEOMETRY)
    assert len(found) > 3
    assert stretches(samples + np.float32(constant), GEOMETRY) == found


def test_a_pause_parts_stretches_and_words() -> None:
    first, second = SPEECH["es"][:40_000], SPEECH["es"][40_000:80_000]
    windows = list(cut([np.concatenate([first, quiet(2.0), second])], GEOMETRY))
    assert [window.silent for window in windows] == [False, True, False]
    vocab = Vocab.from_texts(["ab"])
    heard = [BestPath.blanks(window.keep, vocab.blank) for window in windows if not window.silent]
    heard[0].ids[-1], heard[1].ids[0] = vocab.encode("a")[0], vocab.encode("b")[0]
    path = BestPath.join([heard[0], BestPath.pause(windows[1].keep, vocab), heard[1]])
    found = words(path, vocab, frame_s=0.02, duration_s=7.0)
    assert [word.text for word in found] == ["a", "b"]
    assert found[1].start_s == pytest.approx(72_000 / SAMPLE_RATE, abs=0.3)


@pytest.mark.parametrize(
    ("parts", "kept"),
    [
        (["speech", "click", "speech"], 2),  # a click is none
        (["speech", "faint", "speech"], 2),  # nor is what is 40 dB below
        (["click"], 1),  # where there is nothing else, who knows
        (["faint"], 1),
        (["short", "speech"], 2),
    ],
)
def test_what_is_speech(parts: list[str], kept: int) -> None:
    made = {
        "speech": SPEECH["es"][:40_000],
        "click": np.concatenate([np.zeros(800, np.float32), np.full(160, 0.5, np.float32), np.zeros(800, np.float32)]),
        "faint": SPEECH["ru"][:40_000] * np.float32(0.01),
        "short": SPEECH["es"][20_000:26_000],
    }
    pieces = [quiet(2.0)]
    for part in parts:
        pieces += [made[part], quiet(2.0)]
    found = stretches(np.concatenate(pieces), GEOMETRY)
    assert sum(one.speech for one in found) == kept
    assert [one.begin for one in found[1:]] == [one.end for one in found[:-1]]


def test_nothing_to_be_told_is_one_stretch() -> None:
    for samples, loud in ((quiet(5.0), False), (quiet(5.0, 0.1), True), (quiet(0.1), False)):
        assert stretches(samples, GEOMETRY) == [Stretch(0, GEOMETRY.frames(samples.size), speech=True, loud=loud)]


@pytest.mark.parametrize("gain_db", range(-100, 1, 4))
def test_what_is_surely_loud_is_no_silence(gain_db: float) -> None:
    """It is not measured again, and would be found to be none."""
    samples = SPEECH["es"] * np.float32(10 ** (gain_db / 20))
    told = {one.loud for one in stretches(samples, GEOMETRY)}
    assert (True in told) == (gain_db >= -40)
    (window,) = cut([samples], GEOMETRY)
    assert window.silent == (level_dbfs(window.samples) < SILENCE_DBFS)


@pytest.mark.parametrize("faint_db", [-110, -95, -80, -60])
@pytest.mark.parametrize("fainter_db", [-130, -100, -85])
def test_what_is_faint_everywhere_is_one_stretch(faint_db: float, fainter_db: float) -> None:
    """Dither between digital zeros, say."""
    samples = np.zeros(80_000, np.float32)
    samples[32_000:48_000] = quiet(1.0, 10 ** (faint_db / 20))
    samples[60_000:76_000] = quiet(1.0, 10 ** (fainter_db / 20))
    assert stretches(samples, GEOMETRY) == [Stretch(0, GEOMETRY.frames(samples.size), speech=True)]
    (window,) = cut([samples], GEOMETRY)
    assert window.silent


@pytest.mark.parametrize("loudness_db", range(-60, 0, 5))
def test_stretches_of_any_loudness_cover_all_frames(loudness_db: int) -> None:
    for seed in range(20):
        rng = np.random.default_rng([seed, -loudness_db])
        levels = 10 ** (np.append(loudness_db, rng.uniform(-130, loudness_db, 7)) / 20)
        parts = [quiet(rng.uniform(0.05, 2.0), level if rng.random() < 0.7 else 0.0) for level in levels]
        samples = np.concatenate([parts[number] for number in rng.permutation(len(parts))])
        found = stretches(samples, GEOMETRY)
        assert [0, *(one.end for one in found)] == [*(one.begin for one in found), GEOMETRY.frames(samples.size)]
        assert all(one.begin < one.end for one in found)


def test_an_hour_with_pauses_keeps_all_of_its_frames() -> None:
    def blocks(seed: int) -> list[np.ndarray]:
        rng, clips = np.random.default_rng(seed), list(SPEECH.values())
        made: list[np.ndarray] = []
        for _ in range(20):
            made += [clips[rng.integers(len(clips))], quiet(rng.uniform(0, 25))]
        return made

    for seed in range(3):
        samples = np.concatenate(blocks(seed))
        windows: list[Window] = list(cut(np.array_split(samples, 97), GEOMETRY, WindowShape()))
        assert sum(window.keep for window in windows) == GEOMETRY.frames(samples.size)
        at = 0
        for number, window in enumerate(windows):
            assert (window.index, window.skip >= 0, window.keep > 0) == (number, True, True)
            begin = (at - window.skip) * GEOMETRY.hop
            assert np.array_equal(window.samples, samples[begin : begin + window.samples.size])
            assert GEOMETRY.frames(window.samples.size) >= window.skip + window.keep
            at += window.keep
        computed = sum(window.samples.size for window in windows if not window.silent)
        assert computed < 0.6 * samples.size
