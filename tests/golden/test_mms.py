"""A checkpoint like MMS's against transformers' own forward after ``load_adapter``: solo, and in mixed batches."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
import torch
from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

from adapters.backbone import fingerprint, load_backbone
from adapters.bank import Bank
from adapters.ctc import BestPath, best_tokens, transcript
from adapters.frontend import pad
from adapters.mms_store import mms_store
from adapters.repository import Folder
from tests.builders import clip
from tests.mms import LANGUAGES, make_mms, processor

CLOSE: dict[str, Any] = {"atol": 1e-4, "rtol": 1e-4}
CLIPS = [clip(seconds, seed=30 + i, loudness=0.8 if i == 2 else 0.1) for i, seconds in enumerate((1.3, 0.6, 2.4, 3.0))]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mms")
    make_mms(folder)
    return folder


@pytest.fixture(scope="module")
def wanted(checkpoint):
    """(code, clip) -> transformers' logits, one language loaded after the other, one clip at a time."""
    found = {}
    for code in LANGUAGES:
        model = Wav2Vec2ForCTC.from_pretrained(checkpoint, target_lang=code, ignore_mismatched_sizes=True).eval()
        for number, samples in enumerate(CLIPS):
            inputs = processor(checkpoint, code)(samples, sampling_rate=16_000, return_tensors="pt")
            with torch.inference_mode():
                found[code, number] = model(inputs.input_values).logits[0]
    return found


@pytest.fixture(scope="module")
def served(checkpoint):
    encoder = load_backbone(checkpoint)
    store = mms_store(Folder(checkpoint), checkpoint, encoder.size, fingerprint(checkpoint))
    assert store is not None
    bank = Bank(encoder.size, limit=4)
    loaded = {name: store.load(store.record(name), size=encoder.size) for name in store.signatures()}
    return encoder, bank, loaded, {name: bank.seat(one.record.config, one.tensors) for name, one in loaded.items()}


MIXES = {
    "solo": [],
    "identical": ["deu"] * 4,
    "distinct": ["fra", "uig-script_cyrillic", "deu", "uig-script_arabic"],
    "twice": ["deu", "fra", "fra", "deu"],
}


@pytest.mark.parametrize("mix", MIXES)
@torch.inference_mode()
def test_logits_are_those_of_transformers(served, wanted, mix):
    encoder, bank, _, seats = served
    if mix == "solo":
        for (code, number), logits in wanted.items():
            found = encoder(pad([CLIPS[number]]), bank.dress([seats[code]]))[0, :, : logits.shape[1]]
            torch.testing.assert_close(found, logits, **CLOSE)
        return
    codes = MIXES[mix]
    found = encoder(pad(CLIPS), bank.dress([seats[code] for code in codes]))
    for row, code in enumerate(codes):
        frames, tokens = wanted[code, row].shape
        torch.testing.assert_close(found[row, :frames, :tokens], wanted[code, row], **CLOSE)


@torch.inference_mode()
def test_texts_are_those_of_the_processor(checkpoint, served, wanted):
    """Blanks at any id, special tokens, delimiters; a text of ten letters or more, or it would prove nothing."""
    encoder, bank, loaded, seats = served
    for (code, number), logits in wanted.items():
        said = processor(checkpoint, code).decode(logits.argmax(-1))
        for special in ("<s>", "</s>", "<unk>"):  # it skips them only together with blanks, and then letters merge
            said = said.replace(special, "")
        ids, probabilities = best_tokens(encoder(pad([CLIPS[number]]), bank.dress([seats[code]])))
        path = BestPath(ids[0].numpy(), probabilities[0].numpy())
        text = transcript(path, loaded[code].vocab, frame_s=0.02, duration_s=CLIPS[number].size / 16_000).text
        assert len(text) > 10
        assert text == " ".join(said.split())


@pytest.mark.parametrize(
    ("code", "tokens", "settings"),
    [
        ("deu", [*"abcdefghijklm", "_", "-", *"nopqrstuvwxyz"], {"pad_token": "_", "word_delimiter_token": "-"}),
        ("fra", ["<pad>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ"], {"do_lower_case": True}),
    ],
)
@torch.inference_mode()
def test_texts_are_those_of_a_tokenizer_that_says_more(tmp_path, code, tokens, settings):
    """Which token is the blank, what parts words, small letters: by the files beside ``vocab.json``."""
    make_mms(tmp_path, {code: tokens})
    tokenizer = Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"), target_lang=code, **settings)
    tokenizer.save_pretrained(tmp_path)
    model = Wav2Vec2ForCTC.from_pretrained(tmp_path, target_lang=code, ignore_mismatched_sizes=True).eval()
    encoder = load_backbone(tmp_path)
    store = mms_store(Folder(tmp_path), tmp_path, encoder.size, fingerprint(tmp_path))
    assert store is not None
    loaded, bank = store.load(store.record(code), size=encoder.size), Bank(encoder.size, limit=1)
    seat = bank.seat(loaded.record.config, loaded.tensors)
    assert store.record(code).vocab.sha256 == sha256(loaded.vocab.to_json().encode()).hexdigest()
    for samples in CLIPS:
        ids, probabilities = best_tokens(encoder(pad([samples]), bank.dress([seat])))
        path = BestPath(ids[0].numpy(), probabilities[0].numpy())
        text = transcript(path, loaded.vocab, frame_s=0.02, duration_s=samples.size / 16_000).text
        inputs = Wav2Vec2FeatureExtractor(do_normalize=True)(samples, sampling_rate=16_000, return_tensors="pt")
        said = tokenizer.decode(model(inputs.input_values).logits[0].argmax(-1))
        assert len(text) > 10
        assert text == " ".join(said.split())


@torch.inference_mode()
def test_languages_tell_rows_apart(wanted):
    """The test of the test: adapters move the logits by far more than the tolerance."""
    same = LANGUAGES["deu"].index("a"), LANGUAGES["fra"].index("a")
    moved = wanted["deu", 0][:, same[0]] - wanted["fra", 0][:, same[1]]
    assert moved.abs().mean() > 0.5
