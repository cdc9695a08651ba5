"""MMS's adapters as transformers keeps them: its own forward after ``load_adapter`` is the measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import Wav2Vec2CTCTokenizer

from adapters.config import AdapterConfig
from adapters.errors import AdapterFormatError, AdapterMismatch
from adapters.formats import Imported
from adapters.formats.mms import mms_code, mms_vocab, read_mms, write_mms
from adapters.formats.tokenizer import Tokenizer
from adapters.vocab import Vocab
from tests.adapters.formats.theirs import CLIPS, CLOSE, letters, logits, made, mms_model, ours, published
from tests.builders import encoder_of, reference

LANGUAGES = {"deu": 24, "fra": 31, "uig-script_arabic": 40}
KIND = "wav2vec2-pre-norm-layer"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mms")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return mms_model(folder, LANGUAGES)


@pytest.fixture(scope="module")
def read(folder: Path, model: Any) -> dict[str, Imported]:
    encoder, spoken = encoder_of(model), json.loads((folder / "vocab.json").read_text())
    return {
        code: read_mms(code, load_file(folder / f"adapter.{code}.safetensors"), spoken[code], encoder.size)
        for code in LANGUAGES
    }


def test_a_mixed_batch_says_what_transformers_says_of_each(model, read):
    encoder = encoder_of(model)
    for code, given in read.items():
        assert given.config == AdapterConfig("mms", 8, (0, 1, 2, 3), "none", LANGUAGES[code])
    batch = ours(encoder, [(given.config, given.tensors) for given in read.values()], CLIPS)
    said = []
    for row, samples, (code, given) in zip(batch, CLIPS, read.items(), strict=True):
        model.load_adapter(code)
        theirs = logits(model, samples)
        torch.testing.assert_close(row, theirs, **CLOSE)
        torch.testing.assert_close(ours(encoder, [(given.config, given.tensors)], [samples])[0], theirs, **CLOSE)
        said.append(logits(model, CLIPS[0])[:, :24])
    assert all((one - other).abs().mean() > 0.1 for one, other in zip(said[1:], said[:-1], strict=True))


def test_what_we_write_transformers_loads_and_we_read_back(tmp_path):
    """An adapter of ours beside a backbone, then another language in the same folder."""
    model = reference(KIND, adapter_attn_dim=6)
    model.save_pretrained(tmp_path)
    model = type(model).from_pretrained(tmp_path).eval()
    encoder = encoder_of(model)
    for seed, (code, tokens) in enumerate({"deu": 24, "fra": 30}.items()):
        config = AdapterConfig("mms", 6, (0, 1, 2, 3), "none", tokens)
        adapter = made(tmp_path / "store", encoder, config, seed)
        written = write_mms(adapter, tmp_path, code, encoder.config)
        assert [path.name for path in written] == ["vocab.json", f"adapter.{code}.safetensors"]
        model.load_adapter(code)
        for samples in CLIPS:
            mine = ours(encoder, [(config, adapter.tensors)], [samples])[0]
            torch.testing.assert_close(logits(model, samples), mine, **CLOSE)
        spoken = json.loads((tmp_path / "vocab.json").read_text())
        again = read_mms(code, load_file(written[1]), spoken[code], encoder.size)
        assert (again.config, again.vocab) == (config, adapter.vocab)
        assert again.tensors.keys() == adapter.tensors.keys()
        assert all(torch.equal(again.tensors[key], tensor) for key, tensor in adapter.tensors.items())
    assert list(spoken) == ["deu", "fra"]


def test_what_transformers_saved_comes_out_of_our_store_as_it_was(model, read, folder, tmp_path):
    encoder = encoder_of(model)
    given = read["deu"]
    loaded = published(tmp_path / "store", "deu", encoder, given)
    write_mms(loaded, tmp_path / "out", "deu", encoder.config)
    theirs = load_file(folder / "adapter.deu.safetensors")
    written = load_file(tmp_path / "out" / "adapter.deu.safetensors")
    assert written.keys() == theirs.keys()
    assert all(torch.equal(written[key], tensor) for key, tensor in theirs.items())


REFUSED_EXPORTS = {
    "lora": (AdapterConfig("lora", 4, (1,), "none", 24), "this is of 'lora'; tongues adapters export --to peft"),
    "bottleneck": (AdapterConfig("bottleneck", 4, (1,), "none", 24), "this is of 'bottleneck'$"),
    "some layers": (AdapterConfig("mms", 4, (1, 2), "none", 24), "2 of 4 layers are adapted"),
    "norms": (AdapterConfig("mms", 4, (0, 1, 2, 3), "all", 24), "layer norms of its own"),
}


@pytest.mark.parametrize("case", REFUSED_EXPORTS)
def test_what_mms_has_no_place_for_is_not_written(case, tmp_path):
    config, said = REFUSED_EXPORTS[case]
    encoder = encoder_of(reference(KIND))
    with pytest.raises(AdapterFormatError, match=said):
        write_mms(made(tmp_path / "store", encoder, config), tmp_path / "out", "deu", encoder.config)
    assert not (tmp_path / "out").exists()


def test_where_it_cannot_be_written(tmp_path):
    config = AdapterConfig("mms", 4, (0, 1, 2, 3), "none", 24)
    post = encoder_of(reference("wav2vec2-post-norm-group"))
    with pytest.raises(AdapterFormatError, match="post-norm layers"):
        write_mms(made(tmp_path / "post", post, config), tmp_path, "deu", post.config)
    encoder = encoder_of(reference(KIND))
    adapter = made(tmp_path / "store", encoder, config)
    with pytest.raises(AdapterFormatError, match=r"'../deu' is no code"):
        write_mms(adapter, tmp_path, "../deu", encoder.config)
    (tmp_path / "vocab.json").write_text(letters(5).to_json())
    with pytest.raises(AdapterFormatError, match="of one language, not nested"):
        write_mms(adapter, tmp_path, "deu", encoder.config)


def test_another_width_than_that_of_the_model(tmp_path):
    """load_adapter reads those of one width alone: that of the folder's configuration, or else the backbone's."""
    encoder = encoder_of(reference(KIND, adapter_attn_dim=6))
    adapter = made(tmp_path / "store", encoder, AdapterConfig("mms", 4, (0, 1, 2, 3), "none", 24))
    with pytest.raises(AdapterFormatError, match="adapter_attn_dim is 6: load_adapter takes it where that is 4"):
        write_mms(adapter, tmp_path / "out", "deu", encoder.config)
    assert not (tmp_path / "out").exists()
    model = reference(KIND, adapter_attn_dim=4)
    model.save_pretrained(tmp_path / "model")
    write_mms(adapter, tmp_path / "model", "deu", encoder.config)
    type(model).from_pretrained(tmp_path / "model").load_adapter("deu")


def test_a_language_is_replaced_where_that_is_said(tmp_path, monkeypatch):
    encoder = encoder_of(reference(KIND))
    one, other = (
        made(tmp_path / str(tokens), encoder, AdapterConfig("mms", 4, (0, 1, 2, 3), "none", tokens), seed=tokens)
        for tokens in (24, 30)
    )
    out = tmp_path / "out"
    write_mms(one, out, "deu", encoder.config)
    write_mms(other, out, "fra", encoder.config)
    with pytest.raises(AdapterFormatError, match=r"adapter.deu.safetensors is there already: .*--force"):
        write_mms(other, out, "deu", encoder.config)
    monkeypatch.setattr("adapters.formats.written.write_whole", _full)
    with pytest.raises(OSError, match="full"):
        write_mms(other, out, "deu", encoder.config, force=True)
    monkeypatch.undo()
    assert {path.name for path in out.iterdir()} == {"adapter.fra.safetensors", "vocab.json"}, "no mixture"
    write_mms(other, out, "deu", encoder.config, force=True)
    spoken = json.loads((out / "vocab.json").read_text())
    assert {code: len(part) for code, part in spoken.items()} == {"deu": 30, "fra": 30}


def test_tokens_of_another_adapter_are_not_replaced_unasked(tmp_path):
    """A checkpoint of MMS comes with the tokens of all its languages, and maybe with few of their adapters."""
    encoder = encoder_of(reference(KIND))
    adapter = made(tmp_path / "store", encoder, AdapterConfig("mms", 4, (0, 1, 2, 3), "none", 24))
    (tmp_path / "vocab.json").write_text(json.dumps({"deu": {"<pad>": 0, "ß": 1}}))
    with pytest.raises(AdapterFormatError, match=r"has other tokens for 'deu' already: .*--force"):
        write_mms(adapter, tmp_path, "deu", encoder.config)
    assert json.loads((tmp_path / "vocab.json").read_text()) == {"deu": {"<pad>": 0, "ß": 1}}
    write_mms(adapter, tmp_path, "deu", encoder.config, force=True)
    assert len(json.loads((tmp_path / "vocab.json").read_text())["deu"]) == 24


TOKENIZERS: dict[str, dict[str, Any] | None] = {
    "as transformers' begins": None,
    "[PAD]": {"pad_token": "[PAD]", "unk_token": "[UNK]"},
    "a blank of another name": {"pad_token": "<s>"},
}


@pytest.mark.parametrize("case", TOKENIZERS)
@pytest.mark.parametrize("blank", ["[PAD]", "<pad>"])
def test_transformers_decodes_what_is_written_by_the_tokenizer_there(case, blank, tmp_path):
    encoder, vocab = encoder_of(reference(KIND)), Vocab(("a", "|", blank, "b", "<s>"))
    adapter = made(tmp_path / "store", encoder, AdapterConfig("mms", 4, (0, 1, 2, 3), "none", 5), vocab=vocab)
    folder, told = tmp_path / "out", TOKENIZERS[case]
    if told is not None:
        folder.mkdir()
        (folder / "vocab.json").write_text(json.dumps({"fra": {"<pad>": 0, "<s>": 1, "[PAD]": 2, "|": 3}}))
        Wav2Vec2CTCTokenizer.from_pretrained(folder, target_lang="fra", **told).save_pretrained(folder)
    write_mms(adapter, folder, "deu", encoder.config)
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(folder, target_lang="deu")
    assert tokenizer.decode([2, 0, 0, 2, 1, 1, 3, 2]) == "a b"
    tokens = json.loads((folder / "vocab.json").read_text())["deu"]
    imported = mms_vocab("deu", tokens, Tokenizer.read("deu", folder), 5)
    assert (imported.blank, imported.delimiter, imported.size) == (2, 1, 5)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"do_lower_case": True}, "what says 'A' here says 'a' there; choose another folder"),
        ({"word_delimiter_token": "_"}, "makes other texts of its tokens: .* is a letter of it"),
        ({"replace_word_delimiter_char": "-"}, "what says ' ' here says '-' there"),
        ({"pad_token": "A"}, "what says 'A' here says '' there"),
    ],
)
def test_a_tokenizer_there_that_contradicts_is_told(told, said, tmp_path):
    encoder, vocab = encoder_of(reference(KIND)), Vocab(("<pad>", "|", "A", "b"))
    adapter = made(tmp_path / "store", encoder, AdapterConfig("mms", 4, (0, 1, 2, 3), "none", 4), vocab=vocab)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))
    with pytest.raises(AdapterFormatError, match=said):
        write_mms(adapter, tmp_path, "deu", encoder.config)
    assert not (tmp_path / "vocab.json").exists()


def test_a_tokenizer_there_that_would_leave_a_sigma_as_it_is(tmp_path):
    encoder, vocab = encoder_of(reference(KIND)), Vocab(("<pad>", "|", "α", "Σ"))
    adapter = made(tmp_path / "store", encoder, AdapterConfig("mms", 4, (0, 1, 2, 3), "none", 4), vocab=vocab)
    with pytest.raises(AdapterFormatError, match="'Σ' among small letters stands for small ones here"):
        write_mms(adapter, tmp_path / "out", "ell", encoder.config)
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out/tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    write_mms(adapter, tmp_path / "out", "ell", encoder.config)
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(tmp_path / "out", target_lang="ell")
    assert tokenizer.decode([3, 2, 3, 1, 2]) == "σας α"


def _full(path: Path, content: bytes) -> None:
    raise OSError("full")


@pytest.mark.parametrize(
    ("name", "language", "code"),
    [
        ("uig-script_arabic", "ug", "uig-script_arabic"),
        ("uzb-script_cyrillic", "uz-Cyrl", "uzb-script_cyrillic"),
        ("ara", "ar", "ara"),
        ("acme", "de", "deu"),
        ("fra", "de", "deu"),
        ("de", "de", "deu"),
        ("brazil", "pt-BR", "por"),
    ],
)
def test_what_mms_calls_a_language(name, language, code):
    assert mms_code(name, language) == code


@pytest.mark.parametrize("language", ["uz-Cyrl", "zh", "ar", "sr-Latn"])
def test_of_several_codes_none_is_guessed(language):
    with pytest.raises(AdapterFormatError, match=f"several codes for what '{language}' may be: say which with --code"):
        mms_code("acme", language)


REFUSED_TENSORS = {
    "a layer too many": ("wav2vec2.encoder.layers.4.adapter_layer.norm.weight", AdapterMismatch, "for layer 4"),
    "what is not of an adapter": ("wav2vec2.encoder.layers.0.layer_norm.weight", AdapterFormatError, "has no place"),
}


@pytest.mark.parametrize("case", REFUSED_TENSORS)
def test_tensors_that_have_no_place_are_refused(folder, model, case):
    key, kind, said = REFUSED_TENSORS[case]
    tensors = load_file(folder / "adapter.deu.safetensors")
    tensors[key] = torch.ones(48)
    tokens = json.loads(letters(24).to_json())
    with pytest.raises(kind, match=said):
        read_mms("deu", tensors, tokens, encoder_of(model).size)
    with pytest.raises(AdapterFormatError, match=r"no adapter_layer.linear_1.weight"):
        read_mms("deu", {"lm_head.weight": torch.ones(24, 48)}, tokens, encoder_of(model).size)
    with pytest.raises(AdapterFormatError, match=r"its part of vocab.json"):
        read_mms("deu", tensors, {"a": 1}, encoder_of(model).size)
