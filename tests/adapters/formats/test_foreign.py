"""What is imported is recognised by what lies there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapters.config import AdapterConfig, BackboneSize
from adapters.errors import AdapterFormatError, AdapterMismatch
from adapters.formats.foreign import read_foreign
from adapters.formats.mms import write_mms
from adapters.formats.peft_export import write_peft
from tests.adapters.formats.theirs import letters, made
from tests.builders import encoder_of, reference
from tests.mms import LANGUAGES, make_mms, tuned_mms

SIZE = BackboneSize(48, 4, 96)
CONFIG = reference("wav2vec2-pre-norm-layer").config


@pytest.fixture
def mms(tmp_path: Path) -> Path:
    encoder = encoder_of(reference("wav2vec2-pre-norm-layer"))
    for seed, (code, tokens) in enumerate({"deu": 24, "fra": 30, "uig-script_arabic": 26}.items()):
        adapter = made(tmp_path / "s", encoder, AdapterConfig("mms", 4, (0, 1, 2, 3), "none", tokens), seed)
        write_mms(adapter, tmp_path / "mms", code, encoder.config)
    return tmp_path / "mms"


@pytest.fixture
def peft(tmp_path: Path) -> Path:
    encoder = encoder_of(reference("wav2vec2-pre-norm-layer"))
    write_peft(
        made(tmp_path / "s", encoder, AdapterConfig("lora", 2, (3,), "none", 24)), tmp_path / "p", encoder.config
    )
    return tmp_path / "p"


def read(path: Path, language: str, vocab: Path | None = None):
    return read_foreign("x", path, SIZE, CONFIG, language=language, vocab=vocab)


def test_of_a_folder_of_mms_the_language_that_is_meant(mms):
    assert read(mms, "de").vocab.size == 24
    assert read(mms, "fr").vocab.size == 30
    assert read(mms, "uig-script_arabic").vocab.size == 26
    assert read(mms / "adapter.fra.safetensors", "de").vocab.size == 30, "a file says itself what it is"


def test_scripts_are_found_by_the_language(mms):
    """As MMS names them: none is guessed of several, and only those of the language are named."""
    assert read(mms, "ug").vocab.size == 26
    (mms / "adapter.uig-script_arabic.safetensors").rename(mms / "adapter.uig-script_cyrillic.safetensors")
    told = mms / "vocab.json"
    told.write_text(told.read_text().replace("script_arabic", "script_cyrillic"))
    assert read(mms, "ug").vocab.size == read(mms, "ug-Cyrl").vocab.size == 26
    with pytest.raises(AdapterFormatError, match="no single adapter of 'ug-Arab'"):
        read(mms, "ug-Arab")
    shutil.copy(mms / "adapter.uig-script_cyrillic.safetensors", mms / "adapter.uig-script_arabic.safetensors")
    with pytest.raises(AdapterFormatError, match=r"give one file of uig-script_arabic, uig-script_cyrillic$"):
        read(mms, "ug")


def test_of_mms_shapes_are_looked_at_before_anything_is_loaded(mms, monkeypatch):
    monkeypatch.setattr("adapters.formats.foreign.read_tensors", lambda *_: pytest.fail("it was loaded"))
    path = mms / "adapter.deu.safetensors"
    tensors = load_file(path)
    for key, tensor, said in (
        ("lm_head.weight", torch.ones(24, 32), r"head.weight is of shape \(24, 32\)"),
        ("wav2vec2.encoder.layers.0.adapter_layer.linear_1.weight", torch.ones(100, 48), "100 wide, wider than .* 48"),
    ):
        save_file({**tensors, key: tensor}, path)
        with pytest.raises(AdapterMismatch, match=said):
            read(mms, "de")


def test_a_vocabulary_too_large_to_be_one(mms, monkeypatch):
    monkeypatch.setattr("adapters.formats.files.MOST_JSON_BYTES", 100)
    with pytest.raises(AdapterFormatError, match=r"vocab.json has more than 100 bytes, the most that is read"):
        read(mms, "de")


def test_the_tokenizer_of_mms_is_heard(mms):
    (mms / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Wav2Vec2PhonemeCTCTokenizer"}))
    with pytest.raises(AdapterFormatError, match="is a Wav2Vec2PhonemeCTCTokenizer"):
        read(mms, "de")


def test_tokens_that_the_tokenizer_adds_fill_the_head_of_mms(tmp_path):
    make_mms(tmp_path)
    tokenizer = tuned_mms(tmp_path)
    found = read(tmp_path, "tr")
    assert {token: i for i, token in enumerate(found.vocab.tokens)} == tokenizer.get_vocab()
    assert found.config.vocab_size == 8
    assert read(tmp_path, "de").vocab.size == len(LANGUAGES["deu"]), "as it was"


def test_a_vocabulary_of_its_own(mms, peft, tmp_path):
    (tmp_path / "v.json").write_text(letters(24).to_json())
    (mms / "vocab.json").unlink()
    assert read(mms, "de", tmp_path / "v.json").vocab == letters(24)
    with pytest.raises(AdapterFormatError, match=r"vocab.json cannot be read"):
        read(mms, "de")
    (peft / "vocab.json").unlink()
    assert read(peft, "de", tmp_path / "v.json").config.method == "lora"
    (tmp_path / "v.json").write_text(json.dumps({"deu": json.loads(letters(24).to_json()), "fra": {"<pad>": 0}}))
    assert read(peft, "de", tmp_path / "v.json").vocab == letters(24)


def test_what_is_none_is_refused_with_what_it_looks_like(mms, tmp_path):
    with pytest.raises(AdapterFormatError, match="no single adapter of 'es': give one file of deu, fra, uig"):
        read(mms, "es")
    with pytest.raises(
        AdapterFormatError, match=r"neither a folder of PEFT .* nor an adapter of MMS.*; there is nothing"
    ):
        read(tmp_path / "none", "de")
    folder = tmp_path / "looks"
    folder.mkdir()
    with pytest.raises(AdapterFormatError, match=r"neither a folder of PEFT .*safetensors\)$"):
        read(folder, "de")
    (folder / "adapter.json").write_text("{}")
    with pytest.raises(AdapterFormatError, match="an adapter of ours already"):
        read(folder, "de")
    (folder / "config.json").write_text("{}")
    with pytest.raises(AdapterFormatError, match="a whole checkpoint is for tongues adapters extract"):
        read(folder, "de")
    (folder / "adapter.deu.bin").write_bytes(b"")
    with pytest.raises(AdapterFormatError, match="pickles, which are never loaded"):
        read(folder, "de")
