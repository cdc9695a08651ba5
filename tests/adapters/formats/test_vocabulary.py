"""``vocab.json`` as tokenizers keep it."""

from __future__ import annotations

import json

import pytest
from transformers import Wav2Vec2CTCTokenizer

from adapters.errors import AdapterFormatError
from adapters.formats.vocabulary import read_vocabulary

FLAT = {"<pad>": 0, "|": 1, "a": 2, "b": 3}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "vocab.json"


def test_flat_and_nested(path):
    path.write_text(json.dumps(FLAT))
    assert read_vocabulary("de", path, 4, "de").tokens == ("<pad>", "|", "a", "b")
    path.write_text(json.dumps({"deu": FLAT, "fra": {"<pad>": 0, "é": 1}}))
    assert read_vocabulary("de", path, 4, "de").tokens == ("<pad>", "|", "a", "b")
    assert read_vocabulary("de", path, 2, "fra").tokens == ("<pad>", "é")
    path.write_text(json.dumps({"deu": FLAT}))
    assert read_vocabulary("de", path, 4).size == 4


@pytest.mark.parametrize("kept", ["by transformers", "added_tokens.json"])
def test_what_a_tokenizer_adds_counts_where_the_head_has_rows_for_it(path, kept):
    path.write_text(json.dumps(FLAT))
    if kept == "by transformers":
        Wav2Vec2CTCTokenizer(str(path), unk_token="<unk>").save_pretrained(path.parent)
    else:
        added = {"<s>": 4, "</s>": 5, "<unk>": 6, "<other>": 9}
        (path.parent / "added_tokens.json").write_text(json.dumps(added))
    found = read_vocabulary("de", path, 7)
    tokenizer = Wav2Vec2CTCTokenizer(str(path), unk_token="<unk>")
    assert {token: i for i, token in enumerate(found.tokens)} == tokenizer.get_vocab()
    assert read_vocabulary("de", path, 4).tokens == tuple(FLAT)


def test_an_id_without_a_token_says_nothing(path):
    """transformers takes it for <unk>, of which no text is made."""
    path.write_text(json.dumps({"<pad>": 0, "|": 1, "a": 2, "b": 5}))
    found = read_vocabulary("de", path, 6)
    assert [found.token_text(i) for i in range(6)] == ["", " ", "a", "", "", "b"]
    assert Wav2Vec2CTCTokenizer(str(path)).convert_ids_to_tokens(3) == "<unk>"


@pytest.mark.parametrize("rows", [5, 8])
def test_rows_beyond_the_last_token_say_nothing(path, rows):
    """As ids in the midst do: of a head with the 32 rows that transformers makes unasked, say. Where most rows have no
    token, the vocabulary was written for another head."""
    path.write_text(json.dumps(FLAT))
    found = read_vocabulary("de", path, rows)
    assert [found.token_text(i) for i in range(rows)] == ["", " ", "a", "b", *[""] * (rows - 4)]
    assert Wav2Vec2CTCTokenizer(str(path)).convert_ids_to_tokens(rows + 3) == "<unk>"
    added = {"<s>": 4, "</s>": 5, "<unk>": 6}
    (path.parent / "added_tokens.json").write_text(json.dumps(added))
    assert read_vocabulary("de", path, 8).tokens == (*FLAT, *added, "<unused-7>")
    (path.parent / "added_tokens.json").unlink()
    with pytest.raises(AdapterFormatError, match="the last with the id 3, and the head has 9 rows: it is another's"):
        read_vocabulary("de", path, 9)


def test_special_tokens_that_the_head_has_no_row_for_are_left_out(path):
    path.write_text(json.dumps({**FLAT, "<s>": 4, "</s>": 5}))
    assert read_vocabulary("de", path, 4).tokens == tuple(FLAT)
    assert read_vocabulary("de", path, 5).tokens == (*FLAT, "<s>")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps({"deu": FLAT, "fra": FLAT}), "several languages: deu, fra"),
        (json.dumps({"<pad>": 0}), "has 1 tokens, the last with the id 0, and the head has 4 rows: it is another's"),
        (json.dumps({"<pad>": 0, "a": 5}), "the last with the id 5, and the head has 4 rows: it is another's"),
        (json.dumps({"<pad>": 0, "a": 10**9}), "the id 1000000000; 65536 tokens are the most"),
        (json.dumps({"<pad>": 0, "a": 1, "b": 1, "c": 3}), "one id for several tokens"),
        (json.dumps({"<pad>": 0, "a": [1], "b": 2, "c": 3}), r"has '\[1\]' for 'a', which is no id of a token"),
        (json.dumps({"<pad>": 0, "a": -1, "b": 2, "c": 3}), "has '-1' for 'a'"),
        (json.dumps({"<pad>": 0, "a": True, "b": 2, "c": 3}), "has 'True' for 'a'"),
        (json.dumps({"deu": FLAT, "fra": [1]}), "for 'deu', which is no id"),
        (json.dumps({"a": 0, "b": 1, "c": 2, "d": 3}), "needs one blank token"),
        ("[]", "not one JSON object"),
    ],
)
def test_what_fits_no_head_is_refused(path, content, said):
    path.write_text(content)
    with pytest.raises(AdapterFormatError, match=said):
        read_vocabulary("de", path, 4)


def test_a_language_that_is_not_there(path):
    path.write_text(json.dumps({"deu": FLAT, "fra": FLAT}))
    with pytest.raises(AdapterFormatError, match="several languages, and 'es' names no single one: deu, fra"):
        read_vocabulary("es", path, 4, "es")
