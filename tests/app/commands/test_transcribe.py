from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from tests.app.live import Live
from tests.app.recordings import recording

ROOT = Path(__file__).parents[3]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.wav"
    path.write_bytes(recording("wav-16k", 3.0))
    return path


def run(model_folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--models", str(model_folder)])


def test_it_says_what_the_service_says(model_folder: Path, clip: Path, live: Live) -> None:
    result = run(model_folder, "transcribe", str(clip), "--lang", "de-nonsense")
    assert result.exit_code == 1
    assert "es, fr, ru" in result.stderr
    result = run(model_folder, "transcribe", str(clip), "--lang", "es")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == live.transcribe(clip.read_bytes(), "lang=es&format=text").text


def test_words_and_formats(model_folder: Path, clip: Path) -> None:
    told = json.loads(run(model_folder, "transcribe", str(clip), "--lang", "es", "--words").stdout)
    assert told["words"]
    assert run(model_folder, "transcribe", str(clip), "--adapter", "ru", "--format", "vtt").stdout.startswith("WEBVTT")
    result = run(model_folder, "transcribe", str(clip), "--lang", "es", "--format", "docx")
    assert result.exit_code == 1
    assert "format: should be 'json'" in result.stderr


def test_what_is_no_audio(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_text("no audio")
    result = run(model_folder, "transcribe", str(tmp_path / "x.wav"), "--lang", "es")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: not audio")


def test_a_deadline_is_for_those_who_share_a_service(
    model_folder: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TONGUES_REQUEST_TIMEOUT_S", "0.0001")
    result = run(model_folder, "transcribe", str(clip), "--lang", "es")
    assert (result.exit_code, result.stderr) == (0, "")


def test_what_breaks_off(model_folder: Path, clip: Path) -> None:
    clip.write_bytes(clip.read_bytes()[:50_000])
    result = run(model_folder, "transcribe", str(clip), "--lang", "es")
    assert result.exit_code == 0
    assert result.stdout.strip()
    assert "breaks off" in result.stderr


def test_adapters(model_folder: Path, live: Live) -> None:
    table = run(model_folder, "adapters").stdout
    assert all(name in table for name in ("es", "fr", "ru", "90.0", "stored"))
    told = json.loads(run(model_folder, "adapters", "--json").stdout)
    over_http = live.http.get("/adapters").json()
    drop = {"state", "where"}
    assert [{k: v for k, v in one.items() if k not in drop} for one in told["adapters"]] == [
        {k: v for k, v in one.items() if k not in drop} for one in over_http["adapters"]
    ]


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, app.cli; print([m for m in ('torch', 'transformers', 'fastapi', 'av') if m in sys.modules])"
    root = Path(__file__).resolve().parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True).stdout == "[]\n"


def test_a_language_model_is_read_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    """The one that ships: KenLM draws a bar for each."""
    spoken = str(ROOT / "examples/en.ogg")
    result = run(ROOT / "models/small", "transcribe", spoken, "--lang", "en", "--decode", "beam")
    assert result.stdout.strip()
    assert (result.exit_code, result.stderr, capfd.readouterr().err) == (0, "", "")
