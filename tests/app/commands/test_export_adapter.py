from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from adapters.backbone import load_backbone
from adapters.config import AdapterConfig
from adapters.formats.foreign import read_foreign
from adapters.language_model import LanguageModel
from adapters.store import AdapterStore
from adapters.vocab import Vocab
from app.cli import app
from tests.adapters.formats.theirs import letters
from tests.builders import make_model, publish_random
from tests.hub import Hub

ARPA = b"\\data\\\nngram 1=3\n\n\\1-grams:\n-1.0\t<s>\n-1.0\t</s>\n-1.0\ta\n\n\\end\\\n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = make_model(tmp_path / "model", "wav2vec2-pre-norm-layer")
    encoder = load_backbone(folder / "backbone")
    for name, config in {
        "lora": AdapterConfig("lora", 2, (2, 3), "none", 24),
        "mms": AdapterConfig("mms", 4, (0, 1, 2, 3), "none", 30),
    }.items():
        publish_random(folder, name, config, letters(config.vocab_size), encoder, seed=7, language="de")
    return folder


def export(model: Path, *arguments: object) -> Result:
    return CliRunner().invoke(app, ["adapters", "export", *map(str, arguments), "--models", str(model)])


@pytest.mark.parametrize(("name", "to", "files"), [("lora", "peft", 4), ("mms", "mms", 2)])
def test_what_is_written_is_what_was_published(model: Path, tmp_path: Path, name: str, to: str, files: int) -> None:
    result = export(model, name, "--to", to, "--out", tmp_path / "out")
    assert result.exit_code == 0
    hint = "the model is loaded with adapter_attn_dim=4 to take it\n" if to == "mms" else ""
    assert result.stderr == hint
    assert sorted(result.stdout.split()) == sorted(str(path) for path in (tmp_path / "out").iterdir())
    assert len(result.stdout.split()) == files
    encoder = load_backbone(model / "backbone")
    again = read_foreign("x", tmp_path / "out", encoder.size, encoder.config, language="de")
    store = AdapterStore(model / "adapters")
    was = store.load(store.record(name), size=encoder.size).tensors
    assert again.tensors.keys() == was.keys()
    assert all(torch.equal(again.tensors[key], tensor) for key, tensor in was.items())


def test_peft_finds_the_backbone(model: Path, tmp_path: Path) -> None:
    export(model, "lora", "--to", "peft", "--out", tmp_path)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (settings["base_model_name_or_path"], settings["revision"]) == (str(model / "backbone"), None)


def test_peft_finds_the_backbone_on_the_hub(
    hub: Hub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its id and commit, not by where it happens to lie here."""
    hub.repos["acme/exported-off"] = model / "backbone"
    monkeypatch.setenv("TONGUES_BACKBONE", "acme/exported-off")
    result = export(model, "lora", "--to", "peft", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "acme/exported-off"
    assert settings["revision"] == hub.commit("acme/exported-off")


@pytest.mark.parametrize(("name", "to", "file"), [("lora", "peft", "adapter_config"), ("mms", "mms", "adapter.deu")])
def test_nothing_is_replaced_unasked(model: Path, tmp_path: Path, name: str, to: str, file: str) -> None:
    given = (name, "--to", to, "--out", tmp_path / "out")
    assert export(model, *given).exit_code == 0
    result = export(model, *given)
    assert result.exit_code == 1
    assert "is there already: choose another folder, or replace it with --force" in result.stderr
    assert list((tmp_path / "out").glob(f"{file}*"))
    assert export(model, *given, "--force").exit_code == 0


def test_a_script_is_not_dropped(model: Path, tmp_path: Path) -> None:
    """Two scripts of one language are two files, by their own names or by what is said."""
    encoder, config = load_backbone(model / "backbone"), AdapterConfig("mms", 4, (0, 1, 2, 3), "none", 30)
    for name, language in {"uig-script_arabic": "ug", "mine": "ug-Cyrl"}.items():
        publish_random(model, name, config, letters(30), encoder, seed=7, language=language)
    out = tmp_path / "out"
    assert export(model, "uig-script_arabic", "--to", "mms", "--out", out).exit_code == 0
    result = export(model, "mine", "--to", "mms", "--out", out)
    assert "several codes for what 'ug-Cyrl' may be: say which with --code" in result.stderr
    assert export(model, "mine", "--to", "mms", "--out", out, "--code", "uig-script_cyrillic").exit_code == 0
    assert len(list(out.glob("adapter.uig-script_*.safetensors"))) == 2


def test_a_code_of_its_own(model: Path, tmp_path: Path) -> None:
    export(model, "mms", "--to", "mms", "--out", tmp_path / "out", "--code", "deu-script_latin")
    assert (tmp_path / "out" / "adapter.deu-script_latin.safetensors").exists()
    export(model, "mms", "--to", "mms", "--out", tmp_path / "out")
    assert list(json.loads((tmp_path / "out" / "vocab.json").read_text())) == ["deu-script_latin", "deu"]


def test_a_language_model_is_left_and_said_to_be(model: Path, tmp_path: Path) -> None:
    store, encoder = AdapterStore(model / "adapters"), load_backbone(model / "backbone")
    config = AdapterConfig("head", 0, (), "none", 3)
    tensors = {"head.weight": torch.randn(3, 48), "head.bias": torch.randn(3)}
    store.publish(
        "words",
        tensors,
        Vocab(("<pad>", "|", "a")),
        language="de",
        config=config,
        size=encoder.size,
        fingerprint=None,
        language_model=LanguageModel(ARPA, 0.5, 1.0),
    )
    result = export(model, "words", "--to", "peft", "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert "its language model stays here" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("es", "--to", "peft"), "PEFT has LoRA and heads, and this is of the method 'bottleneck'"),
        (("mms", "--to", "peft"), "tongues adapters export --to mms writes it"),
        (("lora", "--to", "mms"), "tongues adapters export --to peft writes it"),
        (("de", "--to", "peft"), "no adapter 'de'; there are: es, fr, lora, mms, ru"),
        (("mms", "--to", "mms", "--code", "a/b"), "'a/b' is no code of a language"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    model: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    result = export(model, *arguments, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_where_nothing_can_be_written(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    result = export(model, "lora", "--to", "peft", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "out cannot be written" in result.stderr


def test_an_adapter_of_another_backbone(model: Path, tmp_path: Path) -> None:
    path = model / "backbone" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "layer_norm_eps": 1e-3}))
    result = export(model, "lora", "--to", "peft", "--out", tmp_path / "out")
    assert "error: no adapter 'lora'; it was refused: made for the backbone" in result.stderr
