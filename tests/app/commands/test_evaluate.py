"""`tongues evaluate` as it is typed."""

from __future__ import annotations

import json
import shutil

import pytest
from typer.testing import CliRunner, Result

from adapters.encoder import Encoder
from app.cli import app
from tests.adapters.training.tones import write_corpus


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("tones"), counts={"train": 1, "test": 2})


@pytest.fixture
def run(model_folder, manifest):
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["evaluate", "--models", str(model_folder), "--data", str(manifest), *arguments])

    return run


def test_every_language_and_their_mean(run):
    told = json.loads(run("--json").stdout)
    assert told["split"] == "test"
    assert set(told["languages"]) == {"es", "fr"}
    assert told["languages"]["es"]["clips"] == 2
    assert told["mean"]["cer"] == pytest.approx(sum(each["cer"] for each in told["languages"].values()) / 2)


def test_a_quantised_backbone_is_evaluated_in_its_place(run, monkeypatch):
    quantised: list[Encoder] = []
    monkeypatch.setattr("adapters.backbone.quantise_linears", quantised.append)
    assert run("--json").exit_code == 0
    assert not quantised
    assert run("--json", "--quantise", "int8").exit_code == 0
    assert len(quantised) == 1


def test_a_table_for_people(run):
    result = run("--lang", "es", "--split", "train")
    assert result.exit_code == 0
    assert "train split" in " ".join(result.stdout.split())
    assert "mean" in result.stdout
    assert "fr" not in result.stdout.split()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--split", "validation"), "error: 'validation' is not a split; there are train, dev, test"),
        (("--split", "dev"), "no dev clips of a language that has an adapter"),
        (("--lang", "de"), "error: no adapter for the language 'de' (German); there are: es, fr, ru"),
        (("--lang", "es,ru"), "no test clips of ru"),
        (("--adapter", "es-radio"), "error: no adapter 'es-radio'; there are: es, fr, ru"),
        (("--source", "radio,tv"), " from radio, tv; sources there are even"),
        (("--source", "even", "--lang", "es,ru"), "no test clips of ru from even; sources there are even"),
        (("--data", "nowhere.jsonl"), "error: nowhere.jsonl: no such file"),
        (("--models", "nowhere"), "error: nowhere/backbone: no config.json"),
    ],
)
def test_what_cannot_be_evaluated_is_told_in_one_line(run, arguments, said):
    result = run(*arguments)
    assert result.exit_code == 1
    assert said in result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert not result.stdout


def test_what_is_needed_is_asked_for():
    result = CliRunner().invoke(app, ["evaluate"])
    assert result.exit_code == 2


def test_an_adapter_that_cannot_be_worn_is_told_of(model_folder, manifest, tmp_path):
    """Of another backbone, say: its language is not in the table, and the reader learns why."""
    folder = shutil.copytree(model_folder, tmp_path / "model")
    record = folder / "adapters/fr/adapter.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "fingerprint": "0" * 16}))
    result = CliRunner().invoke(app, ["evaluate", "--models", str(folder), "--data", str(manifest), "--json"])
    assert json.loads(result.stdout)["languages"].keys() == {"es"}
    assert "left out: adapter 'fr': made for the backbone 0000000000000000" in result.stderr
