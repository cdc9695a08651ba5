"""`tongues words` and what the system refuses it, as it is typed."""

from __future__ import annotations

import gzip

import pytest
from typer.testing import CliRunner, Result

from adapters.errors import DataError
from app.cli import app

MODELS = "models/small"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["words", "--models", MODELS, "--adapter", "es", *arguments])


def test_a_text_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "texts.txt").write_bytes("año".encode("latin-1"))
    result = run("--data", str(tmp_path / "manifest.jsonl"), "--text", str(tmp_path / "texts.txt"))
    assert result.exit_code == 1
    assert "texts.txt: not readable as UTF-8 text" in result.stderr


def test_what_the_system_refuses_is_one_line(tmp_path, monkeypatch):
    """A full disk, say, wherever it is met."""
    (tmp_path / "texts.txt").write_text("hola\n")

    def full(*rest, **more):
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr("adapters.training.weigh_words.add_language_model", full)
    result = run("--data", str(tmp_path / "manifest.jsonl"), "--text", str(tmp_path / "texts.txt"))
    assert result.exit_code == 1
    assert "error: [Errno 28] No space left on device: 'somewhere'" in result.stderr
    assert "Traceback" not in result.stderr
    assert not isinstance(result.exception, OSError)


@pytest.fixture
def given(tmp_path, monkeypatch):
    """What the model is to be made of, where a text of this name and content is named."""
    told = []

    def add(models, data, adapter, sentences, **more):
        told.append(sentences)
        raise DataError("enough")

    monkeypatch.setattr("adapters.training.weigh_words.add_language_model", add)

    def given(name: str, content: bytes) -> tuple[list[str] | bytes | None, str]:
        (tmp_path / name).write_bytes(content)
        result = run("--data", str(tmp_path / "manifest.jsonl"), "--text", str(tmp_path / name))
        assert result.exit_code == 1
        (line,) = result.stderr.splitlines()
        return (told.pop() if told else None), line

    return given


@pytest.mark.parametrize("name", ["words.arpa", "WORDS.ARPA", "words.arpa.gz", "words.Arpa.GZ"])
def test_a_model_is_known_by_its_name(given, name):
    content = b"\\data\\\n"
    packed = gzip.compress(content) if name.lower().endswith("gz") else content
    assert given(name, packed) == (content, "error: enough")


def test_a_model_that_cannot_be_unpacked_is_named(given):
    found, line = given("words.arpa.gz", b"hm")
    assert found is None
    assert "words.arpa.gz: not a gzip file" in line
    assert given("words.arpa", b"") == (b"", "error: enough")


def test_marks_around_sentences_are_none_of_their_words(given):
    content = b"<s> hola  mundo </s>\n\n<s> </s>\nadi\xc3\xb3s\n"
    assert given("words.txt", content) == (["hola mundo", "adiós"], "error: enough")


@pytest.mark.parametrize("line", ["hola <s> mundo", "</s> hola", "hola <unk>", "<s> <s> hola"])
def test_a_mark_of_the_model_within_a_sentence_is_named(given, line):
    found, told = given("words.txt", f"hola\n\n{line}\n".encode())
    assert found is None
    assert "words.txt:3: '<" in told
    assert "is no word, but a mark of language models" in told
