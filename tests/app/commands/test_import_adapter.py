from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from adapters.config import AdapterConfig
from adapters.formats.mms import write_mms
from adapters.formats.peft_export import write_peft
from adapters.store import AdapterStore
from app.cli import app
from tests.adapters.formats.theirs import made
from tests.app.recordings import recording
from tests.builders import encoder_of, make_model, reference
from tests.hub import Hub

KIND = "wav2vec2-pre-norm-layer"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model", KIND)


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder of PEFT and one of MMS."""
    encoder = encoder_of(reference(KIND))
    lora = made(tmp_path / "s", encoder, AdapterConfig("lora", 2, (2, 3), "none", 24))
    write_peft(lora, tmp_path / "peft", encoder.config)
    mms = made(tmp_path / "s", encoder, AdapterConfig("mms", 4, (0, 1, 2, 3), "none", 30))
    write_mms(mms, tmp_path / "mms", "deu", encoder.config)
    return tmp_path


def run(model: Path, *arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments), "--models", str(model)])


def test_both_kinds_are_published_shown_as_unverified_and_heard_in(model: Path, theirs: Path) -> None:
    result = run(model, "adapters", "import", theirs / "peft", "--name", "lora", "--lang", "German", "--default")
    assert (result.exit_code, result.stderr) == (0, "")
    record = AdapterStore(model / "adapters").record("lora")
    assert result.stdout == f"lora {record.version}: lora 2, de\n"
    assert (record.default, record.verified, record.training) == (True, False, {"imported": "peft"})
    assert run(model, "adapters", "import", theirs / "mms", "--name", "mms", "--lang", "de").exit_code == 0
    file = theirs / "mms" / "adapter.deu.safetensors"
    assert run(model, "adapters", "import", file, "--name", "file", "--lang", "de").exit_code == 0
    told = json.loads(run(model, "adapters", "--json").stdout)["adapters"]
    assert {one["name"]: (one["method"], one["verified"], one["default"]) for one in told} == {
        **dict.fromkeys(("es", "fr", "ru"), ("bottleneck", True, True)),
        "lora": ("lora", False, True),
        "mms": ("mms", False, False),
        "file": ("mms", False, False),
    }
    clip = theirs / "clip.wav"
    clip.write_bytes(recording("wav-16k", 2.0))
    for name in ("lora", "mms", "file"):
        assert run(model, "transcribe", clip, "--adapter", name).exit_code == 0


def test_a_vocabulary_of_its_own(model: Path, theirs: Path) -> None:
    vocab = (theirs / "peft" / "vocab.json").rename(theirs / "elsewhere.json")
    given = ("adapters", "import", theirs / "peft", "--name", "lora", "--lang", "de")
    result = run(model, *given)
    assert result.exit_code == 1
    assert "error: adapter 'lora': no vocab.json in" in result.stderr
    assert run(model, *given, "--vocab", vocab).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("none", "--name", "x", "--lang", "de"), "is neither a folder of PEFT (adapter_config.json) nor"),
        (("mms", "--name", "x", "--lang", "fr"), "has no single adapter of 'fr': give one file of deu"),
        (("peft", "--name", "../x", "--lang", "de"), "a name is 1 to 64 letters"),
        (("peft", "--name", "x", "--lang", "nonsense"), "'nonsense' is not the tag of a language"),
        (("model", "--name", "x", "--lang", "de"), "a whole checkpoint is for tongues adapters extract"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    model: Path, theirs: Path, arguments: tuple[str, ...], said: str
) -> None:
    before = AdapterStore(model / "adapters").names()
    result = run(model, "adapters", "import", theirs / arguments[0], *arguments[1:])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert AdapterStore(model / "adapters").names() == before


def test_a_folder_that_cannot_be_written(model: Path, theirs: Path) -> None:
    """A file where the folder of the adapter would be."""
    (model / "adapters" / "lora").write_text("")
    result = run(model, "adapters", "import", theirs / "peft", "--name", "lora", "--lang", "de")
    assert result.exit_code == 1
    assert "adapters cannot be written: " in result.stderr


def test_options_of_the_list_are_not_passed_over(model: Path, theirs: Path) -> None:
    given = ["adapters", "--models", str(model), "import", str(theirs / "peft"), "--name", "x", "--lang", "de"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 2
    assert "options of import come after it" in result.stderr


def test_onto_a_backbone_of_the_hub_and_into_the_first_store(
    hub: Hub, theirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the image: the backbone comes from the hub, and adapters go where PUT publishes them."""
    reference(KIND).wav2vec2.save_pretrained(theirs / "repo")
    hub.repos["acme/imported-on"] = theirs / "repo"
    monkeypatch.chdir(theirs)
    monkeypatch.setenv("TONGUES_BACKBONE", "acme/imported-on")
    given = ["adapters", "import", str(theirs / "peft"), "--name", "lora", "--lang", "de"]
    assert CliRunner().invoke(app, given).exit_code == 0
    assert AdapterStore(theirs / "models" / "acme--imported-on" / "adapters").names() == ("lora",)
    monkeypatch.setenv("TONGUES_ADAPTERS", str(theirs / "store"))
    assert CliRunner().invoke(app, [*given[:4], "other", *given[5:]]).exit_code == 0
    assert AdapterStore(theirs / "store").names() == ("other",)
    told = json.loads(CliRunner().invoke(app, ["adapters", "--json"]).stdout)["adapters"]
    assert {one["name"]: one["state"] for one in told} == {"lora": "stored", "other": "stored"}


def test_what_it_was_trained_on_is_recorded_and_told(model: Path, theirs: Path) -> None:
    path = theirs / "peft" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": "facebook/wav2vec2-base"}))
    result = run(model, "adapters", "import", theirs / "peft", "--name", "lora", "--lang", "de")
    record = AdapterStore(model / "adapters").record("lora")
    assert record.training == {"imported": "peft", "base_model": "facebook/wav2vec2-base"}
    assert result.stdout == f"lora {record.version}: lora 2, de, trained on facebook/wav2vec2-base\n"


def test_over_an_mms_backbone_only_what_was_trained_without_it(model: Path, theirs: Path) -> None:
    path = model / "backbone" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "adapter_attn_dim": 4}))
    given = ("adapters", "import", theirs / "peft", "--name", "lora", "--lang", "de")
    result = run(model, *given)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "error: adapter 'lora': adapter_attn_dim of the backbone is 4" in result.stderr
    assert run(model, *given, "--bare").exit_code == 0
