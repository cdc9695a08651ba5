"""The language head: no row hears its neighbours' padding, what is saved is what is loaded, and what does not fit is
refused."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from adapters.config import BackboneSize
from adapters.encoder import Frames
from adapters.errors import LanguageHeadError
from adapters.frontend import pad
from adapters.language_head import Calibration, LanguageHead, load_language_head
from tests.builders import clip, encoder_of, random_letters, reference

FINGERPRINT = "0123456789abcdef"


def head(languages: tuple[str, ...] = ("es", "fr", "pt-BR"), size: int = 48, layer: int = 2) -> LanguageHead:
    torch.manual_seed(0)
    count = len(languages)
    calibration = Calibration(0.7, 3.0, tuple(0.1 * number for number in range(count)))
    weight, bias = 9 * torch.randn(count, 7), torch.randn(count)
    return LanguageHead(layer, languages, random_letters(size), weight, bias, calibration, FINGERPRINT)


@torch.inference_mode()
def test_a_row_among_longer_and_louder_ones_is_told_as_it_is_alone():
    encoder = encoder_of(reference("wav2vec2-pre-norm-group"))
    clips = [clip(0.4, 1), clip(2.0, 2, loudness=0.9), clip(1.1, 3, loudness=0.01)]
    together = head()(encoder.trunk(pad(clips), 2))
    for row, one in enumerate(clips):
        torch.testing.assert_close(together[row], head()(encoder.trunk(pad([one]), 2))[0], atol=1e-4, rtol=1e-4)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_what_is_pooled_is_the_share_of_each_letter_in_the_valid_frames():
    letters = random_letters(3)
    torch.manual_seed(0)
    hidden = torch.randn(2, 7, 3)
    told = letters.pooled(Frames(hidden, (7, 4), 1))
    for row, length in ((0, 7), (1, 4)):
        normed = torch.nn.functional.layer_norm(hidden[row, :length], (3,), letters.norm_weight, letters.norm_bias)
        said = (normed @ letters.weight.T + letters.bias).softmax(dim=1)[:, 1:].sum(dim=0)
        torch.testing.assert_close(told[row].square(), said / said.sum())


@pytest.mark.parametrize(
    ("shares", "among", "found"),
    [
        ([0.99, 0.005, 0.003, 0.001, 0.001], range(5), [0]),
        ([0.05, 0.6, 0.3, 0.04, 0.01], range(5), [1, 2, 0, 3]),
        ([0.2, 0.2, 0.2, 0.2, 0.2], range(5), [0, 1, 2, 3]),
        ([0.9, 0.05, 0.03, 0.01, 0.01], [1, 2], [1, 2]),
        ([0.9, 0.05, 0.03, 0.01, 0.01], [4], [4]),
    ],
)
def test_the_shortlist_holds_nearly_all_that_the_head_gives(shares, among, found):
    assert head(tuple("abcde")).shortlist(np.log(shares), among) == found


def test_head_and_score_are_weighed_as_calibrated():
    told = np.log([0.5, 0.3, 0.2])
    made = head()
    found = made.probabilities(told, [0, 2], [-0.5, -0.1])
    odds = np.array([0.7 * told[0] - 1.5, 0.7 * told[2] - 0.3 + 0.2])
    expected = 0.7 * np.exp(odds) / np.exp(odds).sum()
    np.testing.assert_allclose(found, expected)
    assert sum(made.probabilities(told, [0, 1, 2], [-1, -1, -1])) == pytest.approx(1)


def test_a_language_is_found_by_its_key():
    assert [head().index(tag) for tag in ("fr", "fra", "pt", "pt-PT", "de")] == [1, 1, 2, 2, None]


def test_what_is_saved_is_loaded(tmp_path):
    made = head()
    for _ in range(2):
        made.save(tmp_path / "languages")
    (tmp_path / "languages" / "weights-0.safetensors").write_bytes(b"of an older head")
    made.save(tmp_path / "languages")
    found = load_language_head(tmp_path / "languages", fingerprint=FINGERPRINT, size=BackboneSize(48, 4, 96))
    assert (found.layer, found.languages, found.calibration) == (made.layer, made.languages, made.calibration)
    torch.testing.assert_close(found.weight, made.weight, rtol=0, atol=0)
    torch.testing.assert_close(found.bias, made.bias, rtol=0, atol=0)
    assert len(list((tmp_path / "languages").iterdir())) == 2, "what nothing names is gone"


def _record(folder: Path, **changes: object) -> None:
    path = folder / "languages.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "languages.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "languages.json").unlink(), "cannot be read"),
        (lambda folder: _record(folder, format=2), "format 2"),
        (lambda folder: _record(folder, fingerprint="f" * 16), "made for the backbone"),
        (lambda folder: _record(folder, layer=9), "does not fit"),
        (lambda folder: _record(folder, languages=["es"]), "has the shape"),
        (lambda folder: _record(folder, calibration={"head": 1, "score": 1, "offsets": [0]}), "does not fit"),
        (lambda folder: _record(folder, calibration=None), "cannot be read"),
        (lambda folder: next(folder.glob("weights-*")).write_bytes(b"junk"), "is not the file"),
        (lambda folder: next(folder.glob("weights-*")).unlink(), "cannot be read"),
        (lambda folder: _record(folder, weights={"name": "../../x", "sha256": ""}), "cannot be read"),
    ],
    ids=itertools.count(),
)
def test_what_does_not_fit_is_refused(tmp_path, spoil, said):
    folder = tmp_path / "languages"
    head().save(folder)
    spoil(folder)
    with pytest.raises(LanguageHeadError, match=said):
        load_language_head(folder, fingerprint=FINGERPRINT, size=BackboneSize(48, 4, 96))


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    made = head()
    made.weight[0, 0] = torch.nan
    made.save(tmp_path / "languages")
    with pytest.raises(LanguageHeadError, match="no number"):
        load_language_head(tmp_path / "languages", fingerprint=FINGERPRINT, size=BackboneSize(48, 4, 96))
