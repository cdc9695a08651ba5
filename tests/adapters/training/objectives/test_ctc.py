"""Letters in all languages: each row its own alphabet, the same behind two masks, and half way up sounds that are
shared."""

from __future__ import annotations

import pytest
import torch

from adapters.encoder import Encoder
from adapters.frontend import pad
from adapters.training.data import AudioCache
from adapters.training.manifest import read_manifest
from adapters.training.objectives import Batch
from adapters.training.objectives.ctc import Ctc
from tests.adapters.training.tones import SHAPE


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(SHAPE.model()).eval()


@pytest.fixture
def cache(tones) -> AudioCache:
    return AudioCache([clip for clip in read_manifest(tones) if clip.split == "train"], tones.parent / "cache")


def batch(cache: AudioCache, encoder: Encoder, objective: Ctc, *masks: float) -> Batch:
    """Three clips, behind a mask for each of the given probabilities."""
    clips = [0, 1, len(cache) - 1]
    waves = [cache.samples(clip) for clip in clips]
    audio = pad(waves)
    frames = [encoder.geometry.frames(n) for n in audio.lengths]
    width = encoder.geometry.frames(audio.samples.shape[1])
    generator = torch.Generator().manual_seed(2)
    masked = torch.cat([torch.rand(len(clips), width, generator=generator) < mask for mask in masks])
    targets = [objective.target(clip, wave) for clip, wave in zip(clips, waves, strict=True)]
    return Batch(audio, frames, clips, targets, masked, 0)


def objective(cache: AudioCache, encoder: Encoder, consistency_weight: float, sounds: list[str] | None = None) -> Ctc:
    torch.manual_seed(1)
    return Ctc(cache, encoder.geometry, ["es", "fr"], encoder.hidden_size, 0.3, consistency_weight, sounds)


def test_each_language_has_its_own_letters(cache, encoder):
    ctc = objective(cache, encoder, 0.0)
    for language, clip in ((0, 0), (1, len(cache) - 1)):
        assert cache.clips[clip].language == ["es", "fr"][language]
        said = {ctc.vocab.tokens[number] for number in ctc.allowed[language].nonzero().flatten()}
        assert set(cache.clips[clip].text.replace(" ", "")) <= said
    assert (ctc.allowed[0] != ctc.allowed[1]).any()


def test_two_masks_alike_are_one(cache, encoder):
    ctc = objective(cache, encoder, 0.5)
    one, figures = ctc.loss(encoder, batch(cache, encoder, ctc, 0.0))
    two, both = ctc.loss(encoder, batch(cache, encoder, ctc, 0.0, 0.0))
    assert float(two.detach()) == pytest.approx(float(one.detach()), rel=1e-5)
    assert both["apart"] == pytest.approx(0, abs=1e-6)
    assert "apart" not in figures


def test_two_masks_apart_cost_by_their_weight(cache, encoder):
    light, heavy = objective(cache, encoder, 0.0), objective(cache, encoder, 0.5)
    less, figures = light.loss(encoder, batch(cache, encoder, light, 0.1, 0.4))
    more, again = heavy.loss(encoder, batch(cache, encoder, heavy, 0.1, 0.4))
    assert figures == again
    assert figures["apart"] > 0
    assert float(more.detach()) == pytest.approx(float(less.detach()) + 0.5 * figures["apart"], rel=1e-5)


def test_half_way_up_sounds_are_spelled_instead(cache, encoder):
    texts = [clip.text.replace(" ", "") for clip in cache.clips]
    letters = objective(cache, encoder, 0.0)
    sounds = objective(cache, encoder, 0.0, [text.replace("c", "k") for text in texts])
    given = batch(cache, encoder, sounds, 0.0, 0.0)
    sounds.loss(encoder, given)[0].backward()
    above, below = sounds.head
    assert above is sounds.letters
    assert below.out_features == 1 + len(set("".join(texts)))
    (weight, _) = below.parameters()
    assert weight.grad is not None
    assert (weight.grad.abs().sum(dim=1) > 0).all(), "one head, whatever the language"
    _, figures = letters.loss(encoder, given)
    assert figures == sounds.loss(encoder, given)[1], "the letters above are the same"
    assert float(letters.loss(encoder, given)[0].detach()) != float(sounds.loss(encoder, given)[0].detach())
