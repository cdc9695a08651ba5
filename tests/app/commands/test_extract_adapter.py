from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
import soundfile
import torch
from typer.testing import CliRunner, Result

from adapters.backbone import fingerprint, load_backbone
from adapters.config import AdapterConfig
from adapters.encoder import size_of
from adapters.store import AdapterStore
from app.cli import app
from tests.adapters.formats.theirs import CLOSE, letters, logits, ours
from tests.adapters.tuned import AUDIO, checkpoint, front_end, low_rank
from tests.hub import Hub

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
        ("--audio", str(audio / "0.wav")): "frames of the audio; 400 are needed to measure on",
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


def test_a_changed_front_end(tmp_path: Path, audio: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe that it names serves the checkpoint as it is."""
    model = checkpoint(tmp_path, KIND, front_end)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TONGUES_BACKBONE", str(tmp_path / "backbone"))
    result = extract(tmp_path, audio)
    assert result.exit_code == 1
    assert "checkpoint differs in feature_projection.projection.weight by 10.00%" in result.stderr
    told = result.stderr.splitlines()[-1]
    recipe = told.partition("serve it as a model of its own (with the same --audio, if any): ")[2]
    made, copied, extracted = recipe.split(" && ")
    for command in (made, copied):
        subprocess.run(shlex.split(command), check=True)
    settings = [part for part in shlex.split(extracted) if part.startswith("TONGUES_")]
    for setting in settings:
        monkeypatch.setenv(*setting.split("="))
    given = shlex.split(extracted)[len(settings) + 1 :]
    again = CliRunner().invoke(app, [*given, "--audio", str(audio)])
    assert again.exit_code == 0, again.stderr
    assert ": head 0, 100.0% of frames agree" in again.stdout
    folder = tmp_path / "models" / "de"
    encoder, store = load_backbone(folder / "backbone"), AdapterStore(folder / "adapters")
    loaded = store.load(store.record("de"), size=encoder.size)
    row = ours(encoder, [(loaded.record.config, loaded.tensors)], AUDIO[:1])[0]
    torch.testing.assert_close(row, logits(model, AUDIO[0]), **CLOSE)


def test_onto_a_backbone_of_the_hub_and_into_the_first_store(
    hub: Hub, tmp_path: Path, audio: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint(tmp_path, KIND, low_rank(1))
    hub.repos["acme/extracted-off"] = tmp_path / "backbone"
    monkeypatch.setenv("TONGUES_BACKBONE", "acme/extracted-off")
    monkeypatch.setenv("TONGUES_ADAPTERS", str(tmp_path / "store"))
    result = extract(tmp_path, audio)
    assert result.exit_code == 0, result.stderr
    record = AdapterStore(tmp_path / "store").record("de")
    assert (record.config.size, record.fingerprint) == (1, fingerprint(tmp_path / "backbone"))
