"""`tongues words` and what the system refuses it, as it is typed."""

from __future__ import annotations

from typer.testing import CliRunner, Result

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
