from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
from typer.testing import CliRunner, Result

from adapters.backbone import fingerprint
from adapters.config import AdapterConfig
from adapters.encoder import size_of
from adapters.store import AdapterStore
from app.cli import app
from tests.adapters.formats.theirs import letters
from tests.adapters.test_extraction import AUDIO, checkpoint, front_end, low_rank

KIND = "wav2vec2-pre-norm-layer"


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    (tmp_path / "audio").mkdir()
    for number, samples in enumerate(AUDIO):
        soundfile.write(tmp_path / "audio" / f"{number}.wav", samples, 16_000)
    (tmp_path / "audio" / "README.md").write_text("no audio")
    return tmp_path / "audio"


def extract(folder: Path, audio: Path, *arguments: str) -> Result:
    given = [str(folder / "tuned"), "--name", "de", "--lang", "de", "--models", str(folder), "--audio", str(audio)]
    return CliRunner().invoke(app, ["adapters", "extract", *given, *arguments])


def test_a_checkpoint_becomes_an_adapter_that_is_listed_as_verified(tmp_path: Path, audio: Path) -> None:
    checkpoint(tmp_path, KIND, low_rank(3))
    result = extract(tmp_path, audio, "--default")
    assert result.exit_code == 0
    assert result.stderr.splitlines()[0] == "24 linears differ: singular values of each"
    assert [line.split(":")[0] for line in result.stderr.splitlines()[1:]] == ["rank 3", "rank 1", "rank 2"]
    store = AdapterStore(tmp_path / "adapters")
    record = store.record("de")
    assert result.stdout == f"de {record.version}: lora 3, 100.0% of frames agree, logits are off by 0.00%\n"
    assert (record.default, record.fingerprint) == (True, fingerprint(tmp_path / "backbone"))
    assert record.training["extracted"] == "tuned"
    assert record.training["frames_agreeing"] == 1.0
    assert record.training["logit_error"] < 1e-4
    listed = CliRunner().invoke(app, ["adapters", "--json", "--models", str(tmp_path)]).stdout
    assert '"verified": true' in listed


def test_our_own_full_fine_tuning(tmp_path: Path, audio: Path) -> None:
    """backbone/ and a head in adapters/, as `tongues train --method full` writes them."""
    model = checkpoint(tmp_path, KIND, low_rank(2))
    ours = tmp_path / "ours"
    model.wav2vec2.save_pretrained(ours / "backbone")
    AdapterStore(ours / "adapters").publish(
        "de",
        {"head.weight": model.lm_head.weight, "head.bias": model.lm_head.bias},
        letters(24),
        language="de",
        config=AdapterConfig("head", 0, (), "none", 24),
        size=size_of(model.config),
        fingerprint=fingerprint(ours / "backbone"),
    )
    given = ["--name", "x", "--lang", "de", "--models", str(tmp_path), "--audio", str(audio)]
    result = CliRunner().invoke(app, ["adapters", "extract", str(ours), *given])
    assert result.exit_code == 0
    assert ": lora 2, " in result.stdout


def test_what_cannot_be_is_told_in_one_line(tmp_path: Path, audio: Path) -> None:
    checkpoint(tmp_path, KIND, low_rank(3))
    result = extract(tmp_path, audio, "--rank-limit", "2")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("error: adapter 'de': at rank 2, the highest that is allowed, ")
    for arguments, said in {
        ("--audio", str(audio / "0.wav")): "149 frames of audio to measure on; at least 400 (8 s) are needed",
        ("--audio", str(audio / "README.md")): "not audio",
        ("--audio", str(tmp_path / "backbone")): "backbone to measure on: give some with --audio",
        ("--audio", str(tmp_path / "none.wav")): "no recordings in ",
        ("--name", "a b"): "a name is 1 to 64 letters",
    }.items():
        result = extract(tmp_path, audio, *arguments)
        assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1), result.stderr
        assert result.stderr.startswith("error: ")
        assert said in result.stderr
    assert not (tmp_path / "adapters").exists()


def test_a_changed_front_end(tmp_path: Path, audio: Path) -> None:
    checkpoint(tmp_path, KIND, front_end)
    result = extract(tmp_path, audio)
    assert result.exit_code == 1
    assert (
        "error: adapter 'de': the checkpoint differs in feature_projection.projection.weight by 10.00%" in result.stderr
    )
