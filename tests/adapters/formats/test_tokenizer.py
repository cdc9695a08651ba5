"""What a tokenizer says besides the ids: texts are those that transformers' own makes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import Wav2Vec2CTCTokenizer

from adapters.ctc import BestPath, transcript
from adapters.errors import AdapterFormatError
from adapters.formats.vocabulary import read_vocabulary
from adapters.vocab import Vocab, is_special

LETTERS = [*"ABCDEFGHIJKLM"]
CASES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "as it begins": (["<pad>", "<s>", "</s>", "<unk>", "|", *LETTERS], {}),
    "small letters": (["<pad>", "<s>", "</s>", "<unk>", "|", *LETTERS], {"do_lower_case": True}),
    "Greek in small letters": (["<pad>", "|", *"ΑΟΣ’", "ΣΣ"], {"do_lower_case": True}),
    "small letters already": (["<pad>", "|", *"αοσς"], {"do_lower_case": True}),
    "another blank": ([*LETTERS, "|", "_"], {"pad_token": "_"}),
    "a token for a delimiter": ([*LETTERS, "<space>", "<pad>"], {"word_delimiter_token": "<space>"}),
    "a space for a delimiter": (["<pad>", *LETTERS, " "], {"word_delimiter_token": " "}),
    "a letter for a delimiter": (["<pad>", *LETTERS, "M-"], {"word_delimiter_token": "M-"}),
    "another text for the delimiter": (["<pad>", "|", *LETTERS], {"replace_word_delimiter_char": "-"}),
    "nothing for the delimiter": (["<pad>", "|", *LETTERS], {"replace_word_delimiter_char": ""}),
    "two blanks": (["<pad>", "|", *LETTERS, "[PAD]"], {"pad_token": "[PAD]"}),
    "all of it": (
        ["[PAD]", "|", "<space>", *LETTERS],
        {"pad_token": "[PAD]", "do_lower_case": True, "word_delimiter_token": "<space>"},
    ),
}


def made(folder: Path, tokens: list[str], **settings: Any) -> Wav2Vec2CTCTokenizer:
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), **settings)
    tokenizer.save_pretrained(folder)
    return tokenizer


def text(vocab: Vocab, ids: list[int]) -> str:
    path = BestPath(np.array(ids, dtype=np.int32), np.ones(len(ids), dtype=np.float32))
    return transcript(path, vocab, frame_s=0.02, duration_s=0.02 * len(ids)).text


@pytest.mark.parametrize("case", [name for name in CASES if name != "all of it"])
def test_texts_are_those_of_the_tokenizer(case, tmp_path):
    tokens, settings = CASES[case]
    tokenizer = made(tmp_path, tokens, **settings)
    vocab = read_vocabulary("de", tmp_path / "vocab.json", len(tokens))
    assert vocab.blank == tokenizer.pad_token_id
    rng = random.Random(7)
    told = [i for i, token in enumerate(tokens) if not is_special(token) or i == vocab.blank or i == vocab.delimiter]
    for _ in range(50):
        ids = [i for i in rng.choices(told, k=40) for _ in range(rng.randint(1, 3))]
        said = tokenizer.decode(ids)
        assert len(said) > 10
        assert text(vocab, ids) == " ".join(said.split())


@pytest.mark.parametrize(
    ("said", "cleaned"), [("it's here, isn't it?", "it's here, isn't it?"), ("it 's here ,", "it's here,")]
)
def test_words_that_are_parted_are_not_closed_up(said, cleaned, tmp_path):
    """A transcript is words with times, as the tokenizer's offsets are: it closes up the text alone, and where the
    apostrophe stands within a word, as nearly always, leaves all as it is."""
    tokens = ["<pad>", "|", *"ehinrst',?"]
    tokenizer = made(tmp_path, tokens, clean_up_tokenization_spaces=True)
    vocab = read_vocabulary("en", tmp_path / "vocab.json", len(tokens))
    ids = [tokens.index("|" if letter == " " else letter) for letter in said]
    assert tokenizer.decode(ids) == cleaned
    told: Any = tokenizer.decode(ids, output_word_offsets=True)
    assert text(vocab, ids) == said == " ".join(word["word"] for word in told.word_offsets)


def test_a_letter_that_parts_words_here(tmp_path):
    tokens, settings = CASES["all of it"]
    made(tmp_path, tokens, **settings)
    with pytest.raises(AdapterFormatError, match=r"'\|' is a letter of it, and parts words here; '<space>' does"):
        read_vocabulary("de", tmp_path / "vocab.json", len(tokens))


def test_letters_that_become_one(tmp_path):
    tokens = ["<pad>", "|", "A", "a", "b"]
    made(tmp_path, tokens, do_lower_case=True)
    with pytest.raises(AdapterFormatError, match=r"'A' and 'a' make the same text .*do_lower_case"):
        read_vocabulary("de", tmp_path / "vocab.json", len(tokens))


def test_a_sigma_alone_among_small_letters(tmp_path):
    """Which is what those that a tokenizer lowers are read as: to say it as it is there is no name left."""
    made(tmp_path, ["<pad>", "|", "α", "Σ"])
    with pytest.raises(AdapterFormatError, match="'Σ' among small letters stands for small ones here"):
        read_vocabulary("el", tmp_path / "vocab.json", 4)
    made(tmp_path, ["<pad>", "|", "Α", "α", "Σ"])
    assert text(read_vocabulary("el", tmp_path / "vocab.json", 5), [3, 4, 1, 2, 4]) == "αΣ ΑΣ"


def test_of_two_blanks_the_configuration_says_which(tmp_path):
    """What the model was trained with counts: a processor that takes the other would never have been of use."""
    tokens = ["<pad>", "|", *LETTERS, "[PAD]"]
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    with pytest.raises(AdapterFormatError, match=r"both <pad> and \[PAD\] .*: pad_token in tokenizer_config"):
        read_vocabulary("de", path, len(tokens))
    for blank in (0, len(tokens) - 1):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "wav2vec2", "pad_token_id": blank}))
        found = read_vocabulary("de", path, len(tokens))
        assert (found.blank, found.size) == (blank, len(tokens))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "wav2vec2", "pad_token_id": 5}))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "[PAD]"}}))
    assert read_vocabulary("de", path, len(tokens)).blank == len(tokens) - 1


@pytest.mark.parametrize("file", ["tokenizer_config.json", "config.json"])
def test_other_tokenizers_are_refused_by_name(tmp_path, file):
    made(tmp_path, ["<pad>", "|", "a"])
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / file).write_text(json.dumps({"tokenizer_class": "Wav2Vec2PhonemeCTCTokenizer"}))
    with pytest.raises(AdapterFormatError, match=r"is a Wav2Vec2PhonemeCTCTokenizer, which makes other texts"):
        read_vocabulary("de", tmp_path / "vocab.json", 3)
