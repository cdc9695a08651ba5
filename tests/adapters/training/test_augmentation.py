"""Clips as others would have said them, elsewhere: each kind does what it says, and the same each time it is asked."""

from __future__ import annotations

import builtins
import itertools

import numpy as np
import parselmouth
import pytest
import soundfile

from adapters.errors import DataError
from adapters.training.augmentation import Augmentation, through_gsm, through_telephone
from benchmarks.clips import EXAMPLES
from tests.adapters.training.corpus.test_synthetic import brightness
from tests.adapters.training.test_data import noise

ALL = Augmentation(voice=1.0, speed=0.15, equaliser=1.0, telephone=1.0, gsm=1.0, noise=1.0, filter=1.0, bands=1.0)


def spoken() -> np.ndarray:
    samples, rate = soundfile.read(EXAMPLES / "es.ogg", dtype="float32")
    assert rate == 16_000
    return np.asarray(samples[:32_000] / 2)


def pitch_hz(samples: np.ndarray) -> float:
    """The median of what has any."""
    track = parselmouth.Sound(samples.astype(np.float64), 16_000).to_pitch().selected_array["frequency"]
    return float(np.median(track[track > 0]))


def test_the_same_generator_varies_a_clip_in_the_same_way():
    samples = spoken()
    one, same, other = (ALL(samples, np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert one.size != other.size or not np.allclose(one, other)
    assert one.dtype == np.float32


def test_another_voice_has_a_pitch_and_formants_of_its_own():
    samples = spoken()
    varied = [Augmentation(voice=1.0)(samples, np.random.default_rng(seed)) for seed in range(12)]
    assert {wave.size for wave in varied} == {samples.size}
    pitches, formants = [pitch_hz(wave) for wave in varied], [brightness(wave) for wave in varied]
    assert min(pitches) < 130
    assert max(pitches) > 200, "of men and women"
    assert max(formants) / min(formants) > 1.2
    assert abs(np.corrcoef(pitches, formants)[0, 1]) < 0.8, "each by itself"


def test_what_has_no_pitch_has_no_other_voice():
    for samples in (noise(8_000) / np.float32(30_000), np.zeros(8_000, np.float32), noise(300) / np.float32(30_000)):
        varied = Augmentation(voice=1.0)(samples, np.random.default_rng(0))
        assert varied.size == samples.size
        assert np.isfinite(varied).all()


def test_without_praat_it_is_said_what_is_missing(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "parselmouth":
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match="need Praat: pip install"):
        Augmentation(voice=1.0)(spoken(), np.random.default_rng(0))


def test_an_equaliser_moves_bands_against_one_another_and_no_sound_in_time():
    samples = spoken()
    varied = Augmentation(equaliser=1.0)(samples, np.random.default_rng(1))
    assert varied.size == samples.size
    before, after = (np.abs(np.fft.rfft(wave)) ** 2 for wave in (samples, varied))
    edges = np.linspace(200, 14_000, 12).astype(int)
    change_db = [10 * np.log10(after[a:b].sum() / before[a:b].sum()) for a, b in itertools.pairwise(edges)]
    assert np.ptp(change_db) > 3
    assert np.abs(np.diff(change_db)).max() < 25, "and no band is gone"


def test_rumble_lies_below_the_voice():
    samples = spoken()
    hz = np.fft.rfftfreq(samples.size, 1 / 16_000)
    for seed in range(20):
        added = Augmentation(rumble=1.0)(samples, np.random.default_rng(seed)) - samples
        power = np.abs(np.fft.rfft(added)) ** 2
        assert power[hz < 320].sum() > 0.97 * power.sum()
        assert -26 < 20 * np.log10(added.std() / samples.std()) < 4


def test_a_small_microphone_loses_what_is_low_and_keeps_the_rest():
    time_s = np.arange(16_000) / 16_000
    low, high = (np.sin(2 * np.pi * hz * time_s).astype(np.float32) for hz in (30, 1_500))
    for seed in range(10):
        heard = Augmentation(low_cut=1.0)(low + high, np.random.default_rng(seed))
        power = np.abs(np.fft.rfft(heard))
        assert power[30] < 0.3 * power[1_500]
        assert power[1_500] == pytest.approx(8_000, rel=0.02)


@pytest.mark.parametrize("count", [1, 400, 1_601, 16_000])
def test_a_mobile_telephone_keeps_length_and_loudness(count):
    time_s = np.arange(count) / 16_000
    low, high = (0.4 * np.sin(2 * np.pi * hz * time_s).astype(np.float32) for hz in (1_000, 6_000))
    heard = through_gsm(3 * (low + high))
    assert heard.shape == (count,)
    if count == 16_000:
        middle = slice(2_000, -2_000)
        assert heard[middle].std() == pytest.approx(3 * low[middle].std(), rel=0.2)
        assert np.corrcoef(heard[middle], low[middle])[0, 1] > 0.9


def test_without_augmentation_a_clip_stays_as_it_is():
    samples = noise(5_000).astype(np.float32)
    np.testing.assert_array_equal(Augmentation()(samples, np.random.default_rng(0)), samples)


@pytest.mark.parametrize(
    "kind", ["speed", "telephone", "gsm", "noise", "filter", "bands", "equaliser", "rumble", "low_cut"]
)
def test_every_kind_of_augmentation_does_something(kind):
    samples = (noise(8_000) / 30_000).astype(np.float32)
    found = Augmentation(**{kind: 0.15 if kind == "speed" else 1.0})(samples, np.random.default_rng(0))
    assert found.size != samples.size or np.abs(found - samples).max() > 0.01


def test_noise_lies_5_to_30_db_below_the_clip():
    samples = (noise(16_000) / 30_000).astype(np.float32)
    for seed in range(40):
        added = Augmentation(noise=1.0)(samples, np.random.default_rng(seed)) - samples
        below_db = 10 * np.log10(np.mean(samples**2) / np.mean(added**2))
        assert 4.9 < below_db < 30.1


@pytest.mark.parametrize("count", [400, 1_601, 16_000])
def test_a_telephone_line_keeps_the_length_and_drops_what_lies_above_4_khz(count):
    time_s = np.arange(count) / 16_000
    low, high = (0.4 * np.sin(2 * np.pi * hz * time_s).astype(np.float32) for hz in (1_000, 6_000))
    heard = through_telephone(low + high)
    assert heard.shape == (count,)
    assert heard.dtype == np.float32
    if count == 16_000:
        power = np.abs(np.fft.rfft(heard)) ** 2
        assert power[5_500:].sum() < power[900:1_100].sum() / 100
        assert np.corrcoef(heard[200:-200], low[200:-200])[0, 1] > 0.99


@pytest.mark.parametrize("hz", [500, 3_000, 3_400])
def test_a_telephone_line_is_flat_up_to_the_end_of_its_band(hz):
    tone = 0.4 * np.sin(2 * np.pi * hz * np.arange(16_000) / 16_000).astype(np.float32)
    middle = slice(2_000, -2_000)
    assert 20 * np.log10(through_telephone(tone)[middle].std() / tone[middle].std()) == pytest.approx(0, abs=0.5)


def test_a_band_is_lost_and_the_rest_stays():
    samples = noise(16_000).astype(np.float32) / 32_768
    varied = Augmentation(bands=1.0)(samples, np.random.default_rng(5))
    before, after = (np.abs(np.fft.rfft(wave)) for wave in (samples, varied))
    lost = after < before * 1e-2
    first, last = np.flatnonzero(lost)[[0, -1]]
    assert last - first > 50
    assert lost[first : last + 1].all(), "one band"
    np.testing.assert_allclose(after[~lost], before[~lost], rtol=1e-2)
