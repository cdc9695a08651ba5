"""How a clip is varied each time that it is drawn: another voice, another room's microphone, a telephone line, noise.

Everything random follows from the generator that is given; the same one varies a clip in the same way.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr

from adapters.errors import DataError
from adapters.frontend import SAMPLE_RATE

_FORMANTS, _PITCH_HZ = 1.2, (90.0, 270.0)
"""Of another voice: the most that its formants are higher or lower, and between which its pitch lies."""
_GAIN_DB, _BANDS = 6.0, 9
_HIGHEST_MEL = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)


@dataclass(frozen=True)
class Augmentation:
    """How a clip is varied; zeros leave it alone.

    ``voice``: share of clips said by another voice: formants and pitch moved, each by itself (Praat's change of
    gender, by overlap and add). ``speed``: largest relative change of speed, pitch and formants together.
    ``equaliser``: share through a random curve over the spectrum, as another microphone in another room. ``filter``:
    share through a random gentle tilt of it. ``telephone``: share sent through an 8 kHz line in mu-law; ``gsm``:
    through a mobile telephone. ``bands``: share that loses a band of up to a fifth of the mel scale (Kharitonov et
    al. 2020, Data Augmenting Contrastive Learning of Speech Representations in the Time Domain).
    ``noise``: share with white or pink noise added at 5 to 30 dB. ``rumble``: share with a hum of the mains or what
    wind and handling make below the voice, up to as loud as it; ``low_cut``: share that has lost what lies below some
    60 to 350 Hz, as small microphones and many lines lose it.
    """

    speed: float = 0.0
    telephone: float = 0.0
    noise: float = 0.0
    filter: float = 0.0
    bands: float = 0.0
    voice: float = 0.0
    equaliser: float = 0.0
    gsm: float = 0.0
    rumble: float = 0.0
    low_cut: float = 0.0

    def __call__(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(N,) float32 -> (N',) float32. Raises :class:`~adapters.errors.DataError` where Praat is not installed."""
        if self.voice and rng.random() < self.voice:
            samples = _by_another_voice(samples, rng)
        if self.speed:
            factor = float(np.exp(rng.uniform(-1, 1) * np.log1p(self.speed)))
            samples = soxr.resample(samples, SAMPLE_RATE * factor, SAMPLE_RATE, quality="LQ")
        if self.filter and rng.random() < self.filter:
            a = float(rng.uniform(-0.7, 0.7))
            samples = samples + a * np.concatenate([np.zeros(1, np.float32), samples[:-1]])
        if self.equaliser and rng.random() < self.equaliser:
            samples = _through_a_curve(samples, rng)
        if self.rumble and rng.random() < self.rumble:
            samples = samples + _rumble(samples, rng)
        if self.low_cut and rng.random() < self.low_cut:
            samples = _without_lows(samples, rng)
        if self.telephone and rng.random() < self.telephone:
            samples = through_telephone(samples)
        if self.gsm and rng.random() < self.gsm:
            samples = through_gsm(samples)
        if self.bands and rng.random() < self.bands:
            samples = _without_a_band(samples, rng)
        if self.noise and rng.random() < self.noise:
            samples = samples + _noise(samples, rng)
        return samples.astype(np.float32, copy=False)


STRONG = Augmentation(
    voice=0.4,
    speed=0.1,
    equaliser=0.3,
    filter=0.2,
    rumble=0.25,
    low_cut=0.25,
    telephone=0.15,
    gsm=0.1,
    bands=0.3,
    noise=0.15,
)
"""For many passes through little audio, of few voices."""


def through_telephone(samples: np.ndarray) -> np.ndarray:
    """8 kHz, 8-bit mu-law (ITU-T G.711) and back, (N,) -> (N,) float32."""
    narrow = soxr.resample(samples, SAMPLE_RATE, 8000)
    peak = float(np.abs(narrow).max(initial=1e-6))
    x = narrow / peak
    mu = 255.0
    coded = np.round((np.sign(x) * np.log1p(mu * np.abs(x)) / np.log1p(mu) + 1) * 127.5) / 127.5 - 1
    x = np.sign(coded) * np.expm1(np.abs(coded) * np.log1p(mu)) / mu
    wide = soxr.resample((x * peak).astype(np.float32), 8000, SAMPLE_RATE)
    return _of_length(wide, samples.size)


def through_gsm(samples: np.ndarray) -> np.ndarray:
    """8 kHz through GSM 06.10, a mobile telephone's codec at full rate, and back, (N,) -> (N,) float32."""
    narrow = soxr.resample(samples, SAMPLE_RATE, 8000)
    peak = max(1.0, float(np.abs(narrow).max(initial=0.0)))
    coded = io.BytesIO()
    soundfile.write(coded, narrow / peak, 8000, format="WAV", subtype="GSM610")
    coded.seek(0)
    heard, _ = soundfile.read(coded, dtype="float32")
    return _of_length(soxr.resample(heard * peak, 8000, SAMPLE_RATE), samples.size)


def _of_length(samples: np.ndarray, size: int) -> np.ndarray:
    return samples[:size] if samples.size >= size else np.pad(samples, (0, size - samples.size))


def _by_another_voice(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As long as before. What has no pitch stays as it is."""
    try:
        import parselmouth
    except ModuleNotFoundError as error:
        raise DataError("other voices need Praat: pip install 'tongues[train]'") from error
    formants = float(_FORMANTS ** rng.uniform(-1, 1))
    pitch = float(np.exp(rng.uniform(*np.log(_PITCH_HZ))))
    sound = parselmouth.Sound(samples.astype(np.float64), SAMPLE_RATE)
    seed = int(rng.integers(1 << 31))  # it has a generator of its own, for what has no pitch
    parselmouth.praat.run(f"random_initializeWithSeedUnsafelyButPredictably ({seed})")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", parselmouth.PraatWarning)  # nothing in it has a pitch
            # its range stays: where it was widened, Praat did not come back from a creaking clip
            said = parselmouth.praat.call(sound, "Change gender", 75, 600, formants, pitch, 1.0, 1.0)
    except (parselmouth.PraatError, parselmouth.PraatWarning):
        return samples
    return _of_length(said.values[0].astype(np.float32), samples.size)


def _through_a_curve(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gains at points that lie evenly on the mel scale, straight between them."""
    spectrum = np.fft.rfft(samples)
    hz = np.fft.rfftfreq(samples.size, 1 / SAMPLE_RATE)
    points = np.linspace(0, _HIGHEST_MEL, _BANDS)
    gains = np.interp(2595 * np.log10(1 + hz / 700), points, rng.normal(0, _GAIN_DB, _BANDS))
    return np.fft.irfft(spectrum * 10 ** (gains / 20), samples.size).astype(np.float32)


def _rumble(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """From 25 dB below the clip to 3 above it, where nobody's voice is."""
    if rng.random() < 0.5:  # the mains, and a few multiples
        phases = 2 * np.pi * float(rng.choice((50.0, 60.0))) * np.arange(samples.size) / SAMPLE_RATE
        parts = [rng.uniform(0, 1) / k * np.sin(k * phases + rng.uniform(0, 2 * np.pi)) for k in range(1, 6)]
        rumble = np.sum(parts, axis=0)
    else:
        spectrum = np.fft.rfft(rng.standard_normal(samples.size))
        hz = np.fft.rfftfreq(samples.size, 1 / SAMPLE_RATE)
        rumble = np.fft.irfft(spectrum / (1 + (hz / rng.uniform(30, 120)) ** 4), samples.size)
    return _beside(samples, rumble, rng.uniform(-25, 3)).astype(np.float32)


def _without_lows(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Through a Butterworth's curve of the second order, without its delay."""
    edge_hz = float(np.exp(rng.uniform(np.log(60), np.log(350))))
    hz = np.fft.rfftfreq(samples.size, 1 / SAMPLE_RATE)
    kept = hz**2 / np.sqrt(hz**4 + edge_hz**4)
    return np.fft.irfft(np.fft.rfft(samples) * kept, samples.size).astype(np.float32)


def _without_a_band(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    width = rng.uniform(0, _HIGHEST_MEL / 5)
    low = rng.uniform(0, _HIGHEST_MEL - width)
    begin_hz, end_hz = (700 * (10 ** (mel / 2595) - 1) for mel in (low, low + width))
    spectrum = np.fft.rfft(samples)
    spectrum[int(begin_hz * samples.size / SAMPLE_RATE) : int(end_hz * samples.size / SAMPLE_RATE)] = 0
    return np.fft.irfft(spectrum, samples.size).astype(np.float32)


def _noise(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal(samples.size).astype(np.float32)
    if rng.random() < 0.5:  # pink enough: a leaky sum of white noise
        spectrum = np.fft.rfft(noise)
        spectrum /= np.sqrt(np.arange(1, spectrum.size + 1))
        noise = np.fft.irfft(spectrum, samples.size).astype(np.float32)
    return _beside(samples, noise, -rng.uniform(5, 30))


def _beside(samples: np.ndarray, other: np.ndarray, db: float) -> np.ndarray:
    """``other``, so much louder than ``samples``."""
    level = np.sqrt(np.mean(samples**2) / (np.mean(other**2) + 1e-12))
    scaled: np.ndarray = other * (level * 10 ** (db / 20))
    return scaled
