"""`tongues train` as it is typed."""

from __future__ import annotations

import json
import shutil

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from tests.adapters.training.tones import write_corpus


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("tones"), counts={"train": 4, "dev": 2, "test": 2})


def train(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def test_it_publishes_an_adapter_whose_record_says_how_it_was_made(manifest, model_folder, tmp_path):
    models = tmp_path / "mine"
    shutil.copytree(model_folder / "backbone", models / "backbone")
    options = ["--data", manifest, "--models", models, "--run", tmp_path / "run", "--lang", "es", "--name", "es-phone"]
    result = train(*options, "--bottleneck", 4, "--steps", 2, "--lr", 1e-3, "--telephone", 0.5, "--minutes", 0.1)
    assert result.exit_code == 0, result.output
    assert "test CER" in result.stdout
    training = json.loads((models / "adapters/es-phone/adapter.json").read_text())["training"]
    assert training["config"]["size"] == 4
    assert training["config"]["steps"] == 2
    assert training["config"]["augmentation"]["telephone"] == 0.5
    assert training["config"]["augmentation"]["speed"] == 0.15


def test_it_learns_from_other_voices_beside_and_varies_more(manifest, model_folder, tmp_path):
    models = tmp_path / "mine"
    shutil.copytree(model_folder / "backbone", models / "backbone")
    others = write_corpus(tmp_path / "beside", counts={"train": 5})
    options = ["--data", manifest, "--models", models, "--run", tmp_path / "run", "--bottleneck", 4, "--steps", 2]
    result = train(*options, "--lang", "es", "--also", others, "--also-share", 0.3, "--variation", "strong")
    assert result.exit_code == 0, result.output
    training = json.loads((models / "adapters/es/adapter.json").read_text())["training"]
    assert training["data"]["clips"] == 4 + 5
    assert training["config"]["also_share"] == 0.3
    assert training["config"]["augmentation"]["voice"] > 0
    refused = train(*options, "--lang", "es", "--also", tmp_path / "none.jsonl")
    assert refused.exit_code == 1
    assert "none.jsonl" in refused.stderr


def test_a_language_has_one_adapter_however_it_is_spelt(manifest, model_folder, tmp_path):
    models = tmp_path / "mine"
    shutil.copytree(model_folder / "backbone", models / "backbone")
    options = ["--data", manifest, "--models", models, "--run", tmp_path / "run", "--bottleneck", 4, "--steps", 1]
    result = train(*options, "--lang", "Spanish,spa")
    assert result.exit_code == 0, result.output
    assert [path.name for path in (models / "adapters").iterdir()] == ["es"]


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (["--norms", "most"], "--norms takes"),
        (["--method", "prompt"], "--method takes"),
        (["--lr", "nan"], "--lr is between 0 and 1"),
        (["--lr", "-1"], "--lr is between 0 and 1"),
        (["--lang", ""], "--lang names a language"),
        (["--lang", "es,cs"], "{manifest}: no clips of 'cs'; there are es, fr"),
        (["--name", "fr"], "{models}/adapters has an adapter 'fr' already, of the language 'fr': one of 'es' would"),
    ],
)
def test_what_goes_wrong_is_told_in_one_line(manifest, model_folder, option, told):
    result = train("--data", manifest, "--models", model_folder, "--lang", "es", *option)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {told.format(manifest=manifest, models=model_folder)}")


@pytest.mark.parametrize("there", ["", "mine", "mine/out", "mine/out/adapters"])
def test_a_call_that_is_refused_leaves_no_empty_folders(manifest, model_folder, tmp_path, there):
    (tmp_path / there).mkdir(parents=True, exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    out = ["--out", tmp_path / "mine/out"]
    result = train("--data", manifest, "--models", model_folder, "--lang", "es", "--run", tmp_path / "run", *out)
    assert result.exit_code == 1
    assert "give it with --out" in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_cannot_be_made_is_told_of_before_anything_is_trained(manifest, model_folder, tmp_path):
    (tmp_path / "out").write_text("in the way")
    options = ["--run", tmp_path / "run", "--method", "full", "--norms", "none", "--out", tmp_path / "out"]
    result = train("--data", manifest, "--models", model_folder, "--lang", "es", *options)
    assert result.exit_code == 1
    assert f"'{tmp_path}/out/adapters'" in result.stderr
    assert not (tmp_path / "run").exists()
