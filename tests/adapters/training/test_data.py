"""Samples in one file, batches within their bound, and augmentation that breaks nothing."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import DataError
from adapters.training.augmentation import Augmentation
from adapters.training.clip_samples import read_clip
from adapters.training.data import AudioCache, epoch_batches, language_weights, some_of_each, text_key
from adapters.training.manifest import Clip

ALL = Augmentation(speed=0.15, telephone=1.0, noise=1.0, filter=1.0, bands=1.0)


def recorded(folder: Path, name: str, samples: np.ndarray, rate: int = 16_000, **fields) -> Clip:
    soundfile.write(folder / name, samples, rate, subtype="PCM_16")
    clip = Clip(folder / name, max(len(samples), 1) / rate, "hola", "es", "made", "CC0-1.0", "train")
    return replace(clip, **fields)


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-9_000, 9_000, count).astype(np.int16)


@pytest.fixture
def clips(tmp_path) -> list[Clip]:
    return [recorded(tmp_path, f"{i}.flac", noise(1_600 + 700 * i, seed=i)) for i in range(5)]


def test_samples_come_back_exactly(clips, tmp_path):
    cache = AudioCache(clips, tmp_path / "cache")
    assert len(cache) == 5
    for index in range(5):
        np.testing.assert_array_equal(cache.samples(index), noise(1_600 + 700 * index, seed=index) / np.float32(32_768))
        assert cache.samples(index).dtype == np.float32
        assert cache.length(index) == 1_600 + 700 * index


def test_audio_is_decoded_once(clips, tmp_path, monkeypatch):
    first = AudioCache(clips, tmp_path / "cache")
    monkeypatch.setattr(soundfile, "read", None)
    again = AudioCache(clips, tmp_path / "cache")
    assert again.key == first.key
    np.testing.assert_array_equal(again.samples(3), first.samples(3))


def test_another_corpus_is_another_file(clips, tmp_path):
    keys = {AudioCache(clips, tmp_path / "cache").key, AudioCache(clips[:4], tmp_path / "cache").key}
    changed = AudioCache([recorded(tmp_path, "0.flac", noise(9_000)), *clips[1:]], tmp_path / "cache")
    assert changed.key not in keys
    assert changed.length(0) == 9_000


def test_half_a_cache_is_made_again(clips, tmp_path):
    AudioCache(clips, tmp_path / "cache")
    for ending in ("i16", "json"):
        next((tmp_path / "cache").glob(f"samples-*.{ending}")).unlink()
        assert AudioCache(clips, tmp_path / "cache").length(4) == 1_600 + 700 * 4


def test_a_cache_that_was_cut_off_is_made_again(clips, tmp_path):
    """By a loss of power, or in a copy."""
    key = AudioCache(clips, tmp_path / "cache").key
    (samples,) = (tmp_path / "cache").glob("samples-*.i16")
    os.truncate(samples, samples.stat().st_size // 2)
    again = AudioCache(clips, tmp_path / "cache")
    assert again.key == key
    assert again.samples(4).size == 1_600 + 700 * 4


def test_no_clips_are_an_empty_cache(tmp_path):
    assert len(AudioCache([], tmp_path / "cache")) == 0


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (
            lambda folder: recorded(folder, "x.flac", noise(9_000), rate=8_000),
            "8000 Hz, 1 channels; a corpus is 16000 Hz",
        ),
        (lambda folder: recorded(folder, "x.flac", noise(9_000).reshape(-1, 2)), "16000 Hz, 2 channels"),
        (lambda folder: recorded(folder, "x.flac", noise(1_000)), "1000 samples; training takes at least 0.1 s"),
        (
            lambda folder: replace(recorded(folder, "x.flac", noise(9)), path=folder / "no.flac"),
            "there is no such file",
        ),
        (lambda folder: recorded(folder, "x.wav", noise(0)), "no samples in it"),
        (lambda folder: _with_a_nan(recorded(folder, "x.flac", noise(9_000))), "samples that are no numbers"),
        (lambda folder: recorded(folder, "x.flac", noise(16_000 * 61)), "61 s; training takes 60 s at most"),
        (
            lambda folder: recorded(folder, "x.flac", noise(32_000), seconds=1.0),
            "2.00 s, where the manifest says 1",
        ),
        (lambda folder: _scribbled(recorded(folder, "x.flac", noise(9_000))), "cannot be read"),
    ],
    ids=["rate", "stereo", "short", "missing", "empty", "nan", "long", "seconds", "broken"],
)
def test_clips_that_cannot_be_trained_on_are_named(clips, tmp_path, content, wrong):
    with pytest.raises(DataError, match=rf"\.(flac|wav): .*{wrong}"):
        AudioCache([*clips, content(tmp_path)], tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*")), "nothing is left behind"


def _with_a_nan(clip: Clip) -> Clip:
    samples = np.full(9_000, 0.1, np.float32)
    samples[77] = np.nan
    soundfile.write(clip.path, samples, 16_000, format="WAV", subtype="FLOAT")
    return clip


def _scribbled(clip: Clip) -> Clip:
    clip.path.write_bytes(b"no audio")
    return clip


def test_the_key_of_texts_is_of_languages_and_words(clips):
    keys = {
        text_key(clips),
        text_key(clips[1:]),
        text_key([replace(clips[0], text="ola"), *clips[1:]]),
        text_key([replace(clips[0], language="pt"), *clips[1:]]),
    }
    assert len(keys) == 4
    assert text_key(list(clips)) in keys


lengths_of = st.lists(st.integers(100, 5_000), min_size=1, max_size=60)


@given(lengths_of, st.integers(500, 40_000), st.integers(0, 5), st.integers(0, 5))
def test_batches_hold_each_clip_once_and_stay_within_their_bound(lengths, most, seed, epoch):
    batches = epoch_batches(lengths, most, seed=seed, epoch=epoch)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= most
    assert epoch_batches(lengths, most, seed=seed, epoch=epoch) == batches, "the same epoch is the same for ever"


def test_epochs_and_seeds_keep_other_company():
    lengths = np.random.default_rng(0).integers(1_000, 9_000, 200).tolist()
    found = [epoch_batches(lengths, 40_000, seed=s, epoch=e) for s, e in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert len({str(batches) for batches in found}) == 4


def test_rows_of_a_batch_are_alike():
    """Sorted by length, little of a batch is padding."""
    lengths = np.random.default_rng(0).integers(1_000, 160_000, 500).tolist()
    batches = epoch_batches(lengths, 800_000, seed=0, epoch=0)
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    assert sum(lengths) / padded > 0.75


def test_weights_draw_clips_more_and_less_often():
    weights, drawn = [0.5, 1.0, 2.5], np.zeros(3)
    for epoch in range(400):
        for batch in epoch_batches([100, 100, 100], 1_000, seed=0, epoch=epoch, weights=weights):
            np.add.at(drawn, batch, 1)
    np.testing.assert_allclose(drawn / 400, weights, atol=0.1)


def test_small_languages_are_drawn_more_often(clips):
    big = [replace(clip, seconds=100.0) for clip in clips[:4]]
    assert language_weights([*big, replace(clips[4], language="fr", seconds=100.0)], 0.5) == [1.0] * 4 + [2.0]
    assert language_weights([*big, replace(clips[4], language="fr", seconds=1.0)], 1.0)[4] == 4.0
    assert language_weights([*big, replace(clips[4], language="fr", seconds=1.0)], 0.0) == [1.0] * 5


def test_some_of_each_language(clips):
    many = [replace(c, seconds=s, language=tag) for c in clips for s, tag in ((0.5, "es"), (2.0, "es"), (1.0, "fr"))]
    found = some_of_each(many, 2)
    assert [(clip.language, clip.seconds) for clip in found] == [("es", 2.0)] * 2 + [("fr", 1.0)] * 2


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1_600, 20_000),
    gain=st.sampled_from([0.0, 1e-4, 0.1, 1.0]),
    offset=st.sampled_from([0.0, 0.5]),
)
def test_augmented_clips_stay_finite_and_about_as_long(seed, count, gain, offset):
    samples = (noise(count, seed) / 9_000 * gain + offset).astype(np.float32)
    found = ALL(samples, np.random.default_rng(seed))
    assert found.dtype == np.float32
    assert found.ndim == 1
    assert np.isfinite(found).all()
    assert count / 1.16 <= found.size <= count * 1.16
    np.testing.assert_array_equal(found, ALL(samples, np.random.default_rng(seed)))


@pytest.mark.parametrize(
    ("samples", "rate", "wrong"),
    [
        (np.zeros(800), 8_000, "8000 Hz"),
        (np.zeros((800, 2)), 16_000, "2 channels"),
        (None, 0, "cannot be read"),
    ],
)
def test_clips_that_cannot_be_read_are_named(tmp_path, samples, rate, wrong):
    path = tmp_path / "clip.flac"
    path.write_bytes(b"no audio")
    if samples is not None:
        soundfile.write(path, samples, rate)
    with pytest.raises(DataError, match=rf"clip\.flac: .*{wrong}"):
        read_clip(path)


def test_a_folder_of_other_speech_with_the_same_names_is_another_cache(tmp_path):
    """Chunks of one length in folders of two speakers, listed by two manifests that lie side by side."""
    caches = []
    for number, speaker in enumerate(("one", "two")):
        (tmp_path / speaker).mkdir()
        clip = recorded(tmp_path / speaker, "001.wav", noise(9_000) // (4 - 3 * number))
        caches.append(AudioCache([clip], tmp_path / "cache"))
    assert caches[0].key != caches[1].key
    assert np.abs(caches[0].samples(0)).max() < np.abs(caches[1].samples(0)).max() / 2


def test_other_samples_of_the_same_length_are_another_key(tmp_path):
    keys = set()
    for folder, seed in (("one", 1), ("copy", 1), ("other", 2)):
        (tmp_path / folder).mkdir()
        samples = noise(1_600, seed=seed)
        soundfile.write(tmp_path / folder / "a.wav", samples, 16_000, subtype="PCM_16")
        clip = Clip(tmp_path / folder / "a.wav", 0.1, "hola", "es", "made", "CC0-1.0", "train")
        keys.add(AudioCache([clip], tmp_path / folder / "cache").key)
    assert len(keys) == 2
