"""`tongues parameters` as it is typed."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from tests.builders import reference

PAPER = ["--backbone", "wav2vec2-base", "--bottleneck", "256", "--norms", "all", "--vocab-size", "32"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["parameters", *arguments])


@pytest.mark.parametrize(("layers", "trainable", "percent"), [("12", 9_560_096, 9.202), ("6", 4_810_784, 4.852)])
def test_the_papers_figures(layers, trainable, percent):
    result = run(*PAPER, "--layers", layers, "--json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert (told["trainable"], told["percent"]) == (trainable, percent)
    assert told["trainable"] == told["adapters"] + told["norms"] + told["head"]


def test_a_table_for_people():
    result = run(*PAPER, "--layers", "12")
    assert result.exit_code == 0
    assert "9,560,096" in result.stdout
    assert "9.202 %" in result.stdout


def test_a_folder_and_the_top_half_by_default(tmp_path):
    reference("wav2vec2-pre-norm-layer").config.save_pretrained(tmp_path)
    result = run("--backbone", str(tmp_path), "--bottleneck", "8", "--norms", "none", "--json")
    assert json.loads(result.stdout)["adapters"] == 2 * 2 * (2 * 48 * 8 + 8 + 3 * 48)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--backbone", "wav2vec-base"), "error: 'wav2vec-base' is neither a folder with a config.json nor a known"),
        (("--backbone", "wav2vec2-base", "--layers", "13"), "error: --layers 13: wav2vec2-base has 12 layers"),
        (("--backbone", "wav2vec2-base", "--norms", "some"), "error: --norms takes none, adapted or all, not 'some'"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(arguments, said):
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith(said)
    assert len(result.stderr.splitlines()) == 1
    assert not result.stdout


def test_unknown_backbones_are_refused_with_what_there_is():
    assert "wav2vec2-xls-r-300m, " in run("--backbone", "xlsr").stderr
