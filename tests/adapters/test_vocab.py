import json
import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import DataError
from adapters.vocab import Vocab

# as MMS publishes them: blank first, though "|" and "<unk>" are anywhere
PUBLISHED = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "a": 5, "'": 6, "ß": 7, "<": 8, "[": 9}
TEXTS = st.lists(st.text(st.characters(exclude_characters="|", exclude_categories=["Cs"])), max_size=5)


def test_published_form():
    vocab = Vocab.from_json(json.dumps(PUBLISHED))
    assert (vocab.blank, vocab.delimiter, vocab.unknown, vocab.size, len(vocab)) == (0, 4, 3, 10, 10)
    assert vocab.encode("a ß\n '") == [5, 4, 7, 4, 6]
    assert "".join(vocab.token_text(i) for i in range(vocab.size)) == " a'ß<["


def test_blank_is_not_always_first():
    vocab = Vocab.from_json('{"|": 0, "e": 1, "[UNK]": 2, "[PAD]": 3}')
    assert (vocab.blank, vocab.unknown, vocab.delimiter) == (3, 2, 0)
    assert [vocab.token_text(i) for i in range(4)] == [" ", "e", "", ""]


def test_space_may_part_words():
    vocab = Vocab(("<pad>", " ", "a"))
    assert vocab.delimiter == 1
    assert vocab.encode("a  a") == [2, 1, 2]


def test_longest_token_first():
    vocab = Vocab(("<pad>", "|", "c", "h", "ch"))
    assert vocab.encode("chc h") == [4, 2, 1, 3]


def test_a_sigma_among_small_letters_is_what_the_word_makes_of_it():
    vocab = Vocab(("<pad>", "|", "α", "ο", "Σ"))
    ids = np.array([4, 3, 4, 1, 2, 4])
    assert vocab.spell(ids) == [(0, 3, "σος"), (4, 6, "ας")]
    assert vocab.encode("σος ας") == [4, 3, 4, 1, 2, 4]
    assert vocab.spelling("σος") == "ΣοΣ"
    assert Vocab.from_json(vocab.to_json()) == vocab
    capitals = Vocab(("<pad>", "|", "Α", "Ο", "Σ"))
    assert capitals.spell(ids) == [(0, 3, "ΣΟΣ"), (4, 6, "ΑΣ")]
    with pytest.raises(DataError, match="no token for 'σ', 'ς'"):
        capitals.encode("σς")


def test_unknown_characters_are_named():
    vocab = Vocab.from_texts(["abc"])
    with pytest.raises(DataError, match="no token for 'é', '1' in 'aé 1é'"):
        vocab.encode("aé 1é")


@pytest.mark.parametrize("text", ["a|a", "<pad>", "<unk>"])
def test_marks_are_not_text(text):
    vocab = Vocab(("<pad>", "<unk>", "|", "a"))
    with pytest.raises(DataError, match="no token for"):
        vocab.encode(text)


def test_no_delimiter_no_spaces():
    vocab = Vocab(("<pad>", "a"))
    assert vocab.delimiter is None
    with pytest.raises(DataError, match="' '"):
        vocab.encode("a a")


@given(TEXTS)
def test_from_texts_spells_them(texts):
    vocab = Vocab.from_texts(texts)
    assert vocab.blank == 0
    assert vocab.delimiter == 1
    for text in texts:
        assert "".join(map(vocab.token_text, vocab.encode(text))) == " ".join(text.split())
    assert Vocab.from_json(vocab.to_json()) == vocab
    assert Vocab.from_texts(reversed(texts)) == vocab


def test_texts_may_not_hold_the_delimiter():
    with pytest.raises(DataError, match="parts words"):
        Vocab.from_texts(["a|b"])


@pytest.mark.parametrize(
    "data",
    ["", "[]", "[" * 100_000, "{}", '{"a": 0}', '{"<pad>": 0, "a": 2}', '{"<pad>": 0, "a": 0}', '{"<pad>": "0"}',
     '{"<pad>": false}', '{"<pad>": 0.0}', '{"de": {"<pad>": 0}}', '{"<pad>": 0, "[PAD]": 1}', '{"<pad>": 0, "": 1}',
     '{"<pad>": 0, "a": 1, "a": 2}', b"\xff\xfe\x00", b"\x80\x04]q\x00."],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_not_a_vocabulary(data):
    with pytest.raises(DataError):
        Vocab.from_json(data)


def test_is_immutable_and_a_value():
    vocab = Vocab(("<pad>", "|", "a"))
    assert vocab == Vocab.from_json(vocab.to_json())
    assert hash(vocab) == hash(Vocab(("<pad>", "|", "a")))
    assert vocab != Vocab(("<pad>", "a", "|"))
    with pytest.raises(FrozenInstanceError):
        vocab.tokens = ()  # type: ignore[misc]
    vocab.encode("a").append(9)
    assert vocab.encode("a") == [2]
    assert pickle.loads(pickle.dumps(vocab)) == vocab


@pytest.mark.parametrize("tokens", [(), ("a",), ("<pad>", "a", "a"), ("<pad>", "")])
def test_tokens_make_sense(tokens):
    with pytest.raises(DataError):
        Vocab(tokens)


@pytest.mark.parametrize("token", ["\ud800", "a\udfff", "<\ud83d>"])
def test_what_utf8_cannot_write_is_no_token(token):
    with pytest.raises(DataError, match=r"\\ud\w{3}.* has half a surrogate pair in it; a token is text that UTF-8"):
        Vocab.from_json(json.dumps({"<pad>": 0, token: 1}))
    assert Vocab.from_json(r'{"<pad>": 0, "\ud83d\ude00": 1}').tokens[1] == "\N{GRINNING FACE}", "a whole pair"
