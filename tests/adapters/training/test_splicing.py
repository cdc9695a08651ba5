"""Spliced speech: cut where words end, of one voice, of train clips alone, and it says what its text says."""

from __future__ import annotations

import numpy as np
import pytest

from adapters.errors import BackboneError, DataError
from adapters.frontend import SAMPLE_RATE
from adapters.training import splicing as module
from adapters.training.clip_samples import read_clip
from adapters.training.data import AudioCache
from adapters.training.manifest import read_manifest, write_manifest
from adapters.training.splicing import splice
from tests.adapters.training.tones import PITCH_HZ, spoken


@pytest.fixture(scope="module")
def spliced(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("spliced") / "spliced.jsonl"
    made = splice(trained.manifest, trained.models / "backbone", out, minutes=0.7)
    return out, made


def test_new_sentences_of_recorded_words(trained, spliced):
    out, made = spliced
    assert read_manifest(out, check_files=True) == made
    for language in ("es", "fr"):
        mine = [clip for clip in made if clip.language == language]
        recorded = [c for c in read_manifest(trained.manifest) if (c.language, c.split) == (language, "train")]
        assert 42 <= sum(clip.seconds for clip in mine) < 50
        words = {word for clip in recorded for word in clip.text.split()}
        assert {word for clip in mine for word in clip.text.split()} <= words
        assert len({clip.text for clip in mine} - {clip.text for clip in recorded}) > 5
    assert {(clip.split, clip.source, clip.synthetic) for clip in made} == {("train", "spliced", False)}
    assert all(read_clip(clip.path).size / SAMPLE_RATE == pytest.approx(clip.seconds, abs=1e-3) for clip in made)


def letters(samples: np.ndarray) -> str:
    """What the tones say, by their pitches."""
    level = np.convolve(np.abs(samples), np.full(160, 1 / 160), mode="same")
    edges = np.flatnonzero(np.diff((level > 0.02).astype(int), prepend=0, append=0))
    said = ""
    for begin, end in edges.reshape(-1, 2):
        if end - begin > 400:
            pitch = np.abs(np.fft.rfft(samples[begin:end])).argmax() * SAMPLE_RATE / (end - begin)
            said += min(PITCH_HZ, key=lambda letter: abs(np.log(PITCH_HZ[letter] / pitch)))
    return said


def test_they_say_what_they_are_told_to(spliced):
    """A cut in the wrong place would lose a letter, or say one twice."""
    _, made = spliced
    wrong = [clip for clip in made if letters(read_clip(clip.path)) != clip.text.replace(" ", "")]
    assert len(wrong) <= 0.1 * len(made)


def test_pieces_begin_and_end_in_the_pause_between_words(trained):
    cache = AudioCache(
        [clip for clip in read_manifest(trained.manifest) if clip.split == "train"], trained.manifest.parent / "cache"
    )
    pieces = module._pieces(cache, trained.models / "backbone", lambda done, total: None)
    assert len(pieces) > 1.8 * len(cache), "two words a clip"
    loud = 0
    for piece in pieces:
        samples = cache.samples(piece.clip)
        edges = [samples[max(0, edge - 160) : edge + 160] for edge in (piece.begin, piece.end)]
        loud += sum(np.abs(edge).max() > 0.1 for edge in edges)
    assert loud < 0.05 * 2 * len(pieces)


def test_it_comes_out_the_same(trained, spliced, tmp_path):
    _, made = spliced
    again = splice(trained.manifest, trained.models / "backbone", tmp_path / "again.jsonl", minutes=0.7)
    assert [(clip.text, clip.seconds) for clip in again] == [(clip.text, clip.seconds) for clip in made]
    fewer = splice(trained.manifest, trained.models / "backbone", tmp_path / "fr.jsonl", ["fr"], minutes=0.1)
    assert {clip.language for clip in fewer} == {"fr"}


def test_no_more_than_five_times_what_was_recorded(trained, tmp_path):
    clips = read_manifest(trained.manifest)
    train = [clip for clip in clips if (clip.language, clip.split) == ("es", "train")]
    write_manifest(tmp_path / "few.jsonl", train[:14])
    made = splice(tmp_path / "few.jsonl", trained.models / "backbone", tmp_path / "out.jsonl")
    recorded = sum(clip.seconds for clip in train[:14])
    assert len({clip.path for clip in made}) == len(made), "of few pieces the same are chosen twice"
    assert 4 * recorded <= sum(clip.seconds for clip in made) < 5 * recorded + 8


def test_a_joint_has_no_click():
    parts = [spoken("ae"), spoken("io")]
    joined = module._joined(parts)
    assert joined.size == sum(part.size for part in parts)
    constant = module._joined([np.full(800, 0.5, np.float32), np.full(800, 0.5, np.float32)])
    assert np.abs(np.diff(constant)).max() < 0.01
    assert module._joined([np.ones(1, np.float32)]).size == 1


def test_what_cannot_be_spliced_is_refused(trained, tmp_path):
    with pytest.raises(DataError, match="no recorded train clips of it"):
        splice(trained.manifest, trained.models / "backbone", tmp_path / "out.jsonl", ["it"])
    with pytest.raises(BackboneError, match=r"no config\.json"):
        splice(trained.manifest, tmp_path, tmp_path / "out.jsonl")
